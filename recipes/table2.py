"""S-FC with SGD and with β-LASSO beside S-CONV, S-LOCAL and 3-FC: Neyshabur 2020, Table 2.

    python recipes/table2.py                           three data sets, 4000 epochs (GPU, weeks)
    python recipes/table2.py --rows s-fc-sgd s-fc-beta-50 --datasets cifar10 --epochs 400
    python recipes/table2.py --datasets FOLDER --base-channels 8 --epochs 20
    python recipes/table2.py --demo                    embedded data, offline

The same command with --resume reads finished rows from disk and goes on with the others; rows of
--rows may be added to a folder at any time. SVHN's digits don't bear a flip: give --augment crop.
Target: the paper's accuracies stand in the report, for S-FC on CIFAR-10 78.63 with SGD and 82.45,
82.52, 85.19 with β = 0, 1, 50. The paper picks the two λ for each row on a grid; the defaults are
those of a public reproduction of β = 50 on CIFAR-10. Fewer steps need a larger λ.
"""

from tfconvbias import training

SGD = {"family": "s", "optimizer": "sgd"}
BETA_LASSO = {"family": "s", "connectivity": "dense", "optimizer": "beta_lasso"}
ROWS = {
    "S-CONV SGD": {**SGD, "connectivity": "conv"},
    "S-LOCAL SGD": {**SGD, "connectivity": "local"},
    "3-FC SGD": {**SGD, "family": "three_fc", "connectivity": "dense"},
    "S-FC SGD": {**SGD, "connectivity": "dense"},
    "S-FC β=0": {**BETA_LASSO, "beta": 0.0},
    "S-FC β=1": {**BETA_LASSO, "beta": 1.0},
    "S-FC β=50": {**BETA_LASSO, "beta": 50.0},
}

CONFIG = training.PaperTable(
    definitions=ROWS,
    rows=tuple(ROWS),
    targets=training.paper_targets.TABLE_2,
    datasets=("cifar10", "cifar100", "svhn"),
    base_channels=150,
    augment="flip_crop_cutout",
    l1_conv=2e-5,
    l1=5e-6,
    epochs=4000,
    batch_size=512,
)

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
    training.study_recipe(CONFIG, title="Table 2", description=__doc__, demo=DEMO)
