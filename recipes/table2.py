"""S-FC with SGD and with β-LASSO beside S-CONV, S-LOCAL and 3-FC: Neyshabur 2020, Table 2.

    python recipes/table2.py                           three data sets, 4000 epochs (GPU, weeks)
    python recipes/table2.py --rows s-fc-sgd s-fc-beta-50 --datasets cifar10 --epochs 400
    python recipes/table2.py --datasets FOLDER --base-channels 8 --epochs 20
    python recipes/table2.py --demo                    embedded data, offline

The same command with --resume reads finished rows from disk and goes on with the others; rows of
--rows may be added to a folder at any time. Images are augmented with Fast AutoAugment's published
pipeline; --include-extra trains on SVHN's 531,131 extra images, too, as that pipeline does.
Target: the paper's accuracies stand in the report, for S-FC on CIFAR-10 78.63 with SGD and 82.45,
82.52, 85.19 with β = 0, 1, 50. The paper picks the two λ for each row on a grid; the defaults are
those of a public reproduction of β = 50 on CIFAR-10, and --settings takes a file with each row's
own, as protocol.py writes it. Fewer steps need a larger λ.
"""

from tfconvbias import studies, training

CONFIG = studies.neyshabur2020.TABLE_2

# The last row's threshold λβ, 0.025, is about the deviation of the demo's initial weights: with
# twice as much too few are left to learn from, with less than half S-FC generalises no better.
DEMO = {
    "datasets": ("motifs10",),
    "base_channels": 4,
    "three_fc_units": 256,
    "augment": "none",
    "l1_conv": 5e-4,
    "l1": 5e-4,
    "epochs": 12,
    "batch_size": 128,
}

if __name__ == "__main__":
    training.main(CONFIG, studies.report_study, description=__doc__, demo=DEMO)
