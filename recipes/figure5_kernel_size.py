"""ResNet18 by kernel size, SGD beside β-LASSO: Neyshabur 2020, Figure 5.

    python recipes/figure5_kernel_size.py              three data sets, 400 epochs (GPU, days)
    python recipes/figure5_kernel_size.py --datasets cifar10 --kernel-sizes 3 9 15
    python recipes/figure5_kernel_size.py --datasets FOLDER --base-channels 8 --epochs 10
    python recipes/figure5_kernel_size.py --demo       embedded data, offline

Target on CIFAR-10, from 3×3 to 15×15: SGD 95.58 … 90.78, β-LASSO 95.82 … 92.30; the report draws
the paper's curves beside ours. The paper picks the two λ on a grid for each point.
--include-extra trains on SVHN's extra images, too.
"""

from tfconvbias import studies, training

CONFIG = studies.neyshabur2020.KernelSizeStudy(
    title="Figure 5",
    datasets=("cifar10", "cifar100", "svhn"),
    run=training.RunConfig(
        family="resnet18",
        base_channels=64,
        augment="fast_autoaugment",
        l1_conv=2e-5,
        l1=5e-6,
        beta=50.0,
        epochs=400,
        batch_size=512,
    ),
)

DEMO = {
    "datasets": ("motifs10",),
    "num_train": 2000,
    "base_channels": 4,
    "kernel_sizes": (3, 5, 7),
    "augment": "none",
    "l1_conv": 2e-4,
    "l1": 2e-4,
    "beta": 5.0,
    "epochs": 8,
    "batch_size": 50,
}

if __name__ == "__main__":
    training.main(CONFIG, studies.report_study, description=__doc__, demo=DEMO)
