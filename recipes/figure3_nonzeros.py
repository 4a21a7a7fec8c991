"""Non-zero weights of S-FC's layers under β-LASSO over training: Neyshabur 2020, Figure 3.

    python recipes/figure3_nonzeros.py                 three data sets, 4000 epochs (GPU, weeks)
    python recipes/figure3_nonzeros.py --datasets FOLDER --base-channels 8 --epochs 20
    python recipes/figure3_nonzeros.py --base-channels 230 --hidden-ratio 25   the paper's layers
    python recipes/figure3_nonzeros.py --demo          embedded data, offline

Target: layer 1 ends between S-CONV's and S-LOCAL's number of weights, or below. The paper's final
counts on CIFAR-10 are 125,000 / 4.103 M / 35,520, of layers that fit α = 230; the report states
both shares. --include-extra trains on SVHN's extra images, too.
"""

from tfconvbias import studies, training

CONFIG = studies.neyshabur2020.NonzeroStudy(
    title="Figure 3",
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
