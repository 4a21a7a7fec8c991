"""D-, S- and 3-FC networks with SGD: Neyshabur 2020, Table 1, set beside the paper's figures.

    python recipes/table1.py                           three data sets, 400 epochs (GPU, days)
    python recipes/table1.py --rows s-conv s-fc --datasets cifar10
    python recipes/table1.py --epochs 4000 --run-dir runs/table-1-4000
    python recipes/table1.py --datasets FOLDER --base-channels 8 --epochs 20
    python recipes/table1.py --demo                    embedded data, offline

The same command with --resume reads finished rows from disk and goes on with the others; rows of
--rows may be added to a folder at any time. SVHN's digits don't bear a flip: give --augment crop.
Target: the paper's accuracies after 400 and 4000 epochs stand in the report. The paper picks
momentum, weight decay and dropout for each row on a grid; a call of this recipe has one of each.
"""

from tfconvbias import training

ROWS = {
    "D-CONV": {"family": "d", "connectivity": "conv"},
    "D-LOCAL": {"family": "d", "connectivity": "local"},
    "D-FC": {"family": "d", "connectivity": "dense"},
    "S-CONV": {"family": "s", "connectivity": "conv"},
    "S-LOCAL": {"family": "s", "connectivity": "local"},
    "S-FC": {"family": "s", "connectivity": "dense"},
    "3-FC": {"family": "three_fc", "connectivity": "dense"},
}

CONFIG = training.PaperTable(
    definitions=ROWS,
    rows=tuple(ROWS),
    targets=training.paper_targets.TABLE_1,
    datasets=("cifar10", "cifar100", "svhn"),
    base_channels=150,
    augment="flip_crop_cutout",
    epochs=400,
    batch_size=512,
)

DEMO = {
    "datasets": ("motifs10",),
    "base_channels": 4,
    "three_fc_units": 256,
    "augment": "none",
    "epochs": 8,
    "batch_size": 128,
}

if __name__ == "__main__":
    training.study_recipe(CONFIG, title="Table 1", description=__doc__, demo=DEMO)
