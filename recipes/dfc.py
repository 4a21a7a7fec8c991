"""D-FC with SGD on CIFAR-10, CIFAR-100 or SVHN: Neyshabur 2020, Table 1.

    python recipes/dfc.py                             CIFAR-10, 400 epochs (GPU, hours)
    python recipes/dfc.py --dataset cifar100|svhn
    python recipes/dfc.py --dataset FOLDER            images as train/<class>/*, test/<class>/*
    python recipes/dfc.py --demo                      small and offline, under a minute

Target: test accuracy after 400 / 4000 epochs, %: CIFAR-10 64.78 / 63.62, CIFAR-100
36.61 / 35.51, SVHN 92.52 / 90.97. The paper reports the best of its grid of momentum and weight
decay; this is one point of it.
"""

from tfconvbias import training

CONFIG = training.RunConfig(
    family="d",
    connectivity="dense",
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
