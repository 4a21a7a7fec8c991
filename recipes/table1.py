"""D-, S- and 3-FC networks with SGD: Neyshabur 2020, Table 1, set beside the paper's figures.

    python recipes/table1.py                           three data sets, 400 epochs (GPU, days)
    python recipes/table1.py --rows s-fc --datasets cifar10             one row, one data set
    python recipes/table1.py --epochs 4000 --run-dir runs/table-1-4000
    python recipes/table1.py --settings runs/protocol/settings.json     each row's own settings
    python recipes/table1.py --datasets FOLDER --base-channels 8 --epochs 20
    python recipes/table1.py --demo                    embedded data, offline

The same command with --resume reads finished rows from disk and goes on with the others; rows of
--rows may be added to a folder at any time. Images are augmented with Fast AutoAugment's published
pipeline; --include-extra trains on SVHN's 531,131 extra images, too, as that pipeline does.
Target: the paper's accuracies after 400 and 4000 epochs, which stand in the report, for example
S-FC 72.77 / 78.63 % on CIFAR-10. The paper picks momentum, weight decay and dropout for each row on
a grid: protocol.py does so, and --settings takes what it found, for each row and data set. Without,
each row trains with what stands in `studies.neyshabur2020.tables`.
"""

from tfconvbias import studies, training

CONFIG = studies.neyshabur2020.TABLE_1

DEMO = {
    "datasets": ("motifs10",),
    "base_channels": 4,
    "three_fc_units": 256,
    "augment": "none",
    "epochs": 8,
    "batch_size": 128,
}

if __name__ == "__main__":
    training.main(CONFIG, studies.report_study, description=__doc__, demo=DEMO)
