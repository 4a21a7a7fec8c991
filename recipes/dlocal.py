"""D-LOCAL with SGD on CIFAR-10, CIFAR-100 or SVHN: Neyshabur 2020, Table 1.

    python recipes/dlocal.py                             CIFAR-10, 400 epochs (GPU, hours)
    python recipes/dlocal.py --dataset cifar100|svhn
    python recipes/dlocal.py --dataset FOLDER            images as train/<class>/*, test/<class>/*
    python recipes/dlocal.py --demo                      small and offline, under a minute

Target: test accuracy after 400 / 4000 epochs, %: CIFAR-10 86.13 / 86.07, CIFAR-100
58.58 / 55.71, SVHN 95.71 / 95.85. The paper reports the best of its grid of momentum and weight
decay; this is one point of it.
"""

from tfconvbias import training

CONFIG = training.RunConfig(
    family="d",
    connectivity="local",
    base_channels=15,
    dataset="cifar10",
    augment="flip_crop_cutout",
    momentum=0.9,
    weight_decay=5e-4,
    epochs=400,
    batch_size=512,
)

DEMO = {
    "dataset": "motifs10",
    "base_channels": 1,
    "augment": "none",
    "epochs": 4,
    "batch_size": 128,
}

if __name__ == "__main__":
    training.run_recipe(CONFIG, description=__doc__, demo=DEMO)
