"""First-layer filters under SGD, β-LASSO and of S-LOCAL: Neyshabur 2020, Figures 4 and 7–9.

    python recipes/figure4_filters.py                  three data sets, 4000 epochs (GPU, weeks)
    python recipes/figure4_filters.py --datasets FOLDER --base-channels 8 --epochs 20
    python recipes/figure4_filters.py --demo           embedded data, offline

Target: β-LASSO's filters look local, SGD's don't. Beside the pictures the report states it in
numbers, the weights' spread and their share in the best window, against the same weights on
permuted pixels: ratios of 1 where place means nothing. --include-extra
trains on SVHN's extra images, too.
"""

from tfconvbias import studies, training

CONFIG = studies.neyshabur2020.FilterStudy(
    title="Figures 4 and 7-9",
    datasets=("cifar10", "cifar100", "svhn"),
    run=training.RunConfig(
        base_channels=150,
        augment="fast_autoaugment",
        l1_conv=2e-5,
        l1=5e-6,
        beta=50.0,
        epochs=4000,
        batch_size=512,
    ),
)

DEMO = {
    "datasets": ("motifs10",),
    "base_channels": 4,
    "augment": "none",
    "l1_conv": 2e-3,
    "l1": 2e-3,
    "beta": 5.0,
    "epochs": 12,
    "batch_size": 128,
}

if __name__ == "__main__":
    training.main(CONFIG, studies.report_study, description=__doc__, demo=DEMO)
