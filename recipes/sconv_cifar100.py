"""S-CONV on CIFAR-100 with SGD: Neyshabur 2020, Table 1.

    python recipes/sconv_cifar100.py                      the paper's run, 400 epochs (GPU, hours)
    python recipes/sconv_cifar100.py --dataset FOLDER     images as train/<class>/*, test/<class>/*
    python recipes/sconv_cifar100.py --demo               small and offline, under a minute

Target: test accuracy 59.48 % after 400 epochs, 62.51 % after 4000 (α = 150, Fast AutoAugment).
"""

from tfconvbias import studies, training

# Every row of Table 1 is a command: this one, or python recipes/table1.py --rows s-conv.
CONFIG = studies.neyshabur2020.TABLE_1.row("S-CONV", "cifar100")

DEMO = {
    "dataset": "motifs10",
    "base_channels": 4,
    "augment": "none",
    "epochs": 4,
    "batch_size": 128,
}

# The recipe is about one member of one family: these are no options.
FAMILY = ("family", "connectivity", "hidden_units")

if __name__ == "__main__":
    training.main(CONFIG, training.report_run, description=__doc__, demo=DEMO, fixed=FAMILY)
