"""S-LOCAL with SGD on CIFAR-10, CIFAR-100 or SVHN: Neyshabur 2020, Table 1.

    python recipes/slocal.py                             CIFAR-10, 400 epochs (GPU, hours)
    python recipes/slocal.py --dataset cifar100|svhn
    python recipes/slocal.py --dataset FOLDER            images as train/<class>/*, test/<class>/*
    python recipes/slocal.py --demo                      small and offline, under a minute

Target: test accuracy after 400 / 4000 epochs, %: CIFAR-10 81.52 / 85.86, CIFAR-100
56.64 / 62.03, SVHN 92.51 / 93.98. The paper reports the best of its grid of momentum and weight
decay; this is one point of it.
"""

from tfconvbias import training

CONFIG = training.RunConfig(
    family="s",
    connectivity="local",
    base_channels=150,
    dataset="cifar10",
    augment="flip_crop_cutout",
    momentum=0.9,
    weight_decay=5e-4,
    epochs=400,
    batch_size=512,
)

DEMO = {
    "dataset": "motifs10",
    "base_channels": 4,
    "augment": "none",
    "epochs": 4,
    "batch_size": 128,
}

if __name__ == "__main__":
    training.run_recipe(CONFIG, description=__doc__, demo=DEMO)
