"""3-FC with SGD on CIFAR-10, CIFAR-100 or SVHN: Neyshabur 2020, Table 1.

    python recipes/three_fc.py                             CIFAR-10, 400 epochs (GPU, hours)
    python recipes/three_fc.py --dataset cifar100|svhn
    python recipes/three_fc.py --dataset FOLDER            images as train/<class>/*, test/<class>/*
    python recipes/three_fc.py --demo                      small and offline, under a minute

Target: test accuracy after 400 / 4000 epochs, %: CIFAR-10 69.19 / 75.12, CIFAR-100
44.95 / 50.75, SVHN 85.98 / 86.02. The paper reports the best of its grid of momentum and weight
decay; this is one point of it.
"""

from tfconvbias import training

CONFIG = training.RunConfig(
    family="three_fc",
    connectivity="dense",
    hidden_units=14540,
    dataset="cifar10",
    augment="flip_crop_cutout",
    momentum=0.9,
    weight_decay=5e-4,
    epochs=400,
    batch_size=512,
)

DEMO = {
    "dataset": "motifs10",
    "hidden_units": 128,
    "augment": "none",
    "epochs": 4,
    "batch_size": 128,
}

if __name__ == "__main__":
    training.run_recipe(CONFIG, description=__doc__, demo=DEMO)
