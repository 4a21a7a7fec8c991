"""Published figures of "Towards Learning Convolutions from Scratch", to be set beside ours.

Neyshabur, 2020, arXiv 2007.13657. The tables' values are those that the paper prints. The values
of Figures 3 and 5 are read off the vector paths of the first version's PDF; accuracies are rounded
to 0.01, counts to four digits.
"""

from collections.abc import Mapping, Sequence

Accuracies = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Row → data set → epochs → test accuracy, %."""


PAPER_DATASETS = ("cifar10", "cifar100", "svhn")
"""The data sets for which there are published values."""


def _by_epochs(values: Mapping[str, Sequence[tuple[float, ...]]], epochs: Sequence[int]):
    return {
        row: {
            dataset: dict(zip(epochs, accuracies, strict=True))
            for dataset, accuracies in zip(PAPER_DATASETS, found, strict=True)
        }
        for row, found in values.items()
    }


TABLE_1: Accuracies = _by_epochs(
    {
        "D-CONV": [(88.84, 89.79), (63.73, 62.26), (95.65, 95.86)],
        "D-LOCAL": [(86.13, 86.07), (58.58, 55.71), (95.71, 95.85)],
        "D-FC": [(64.78, 63.62), (36.61, 35.51), (92.52, 90.97)],
        "S-CONV": [(84.14, 87.05), (59.48, 62.51), (92.34, 93.38)],
        "S-LOCAL": [(81.52, 85.86), (56.64, 62.03), (92.51, 93.98)],
        "S-FC": [(72.77, 78.63), (47.72, 51.43), (88.64, 91.80)],
        "3-FC": [(69.19, 75.12), (44.95, 50.75), (85.98, 86.02)],
    },
    (400, 4000),
)
"""Table 1: SGD, the widths at which the fully connected version has 256 M parameters."""

TABLE_2: Accuracies = {
    "S-CONV SGD": TABLE_1["S-CONV"],
    "S-LOCAL SGD": TABLE_1["S-LOCAL"],
    "3-FC SGD": TABLE_1["3-FC"],
    "S-FC SGD": TABLE_1["S-FC"],
    **_by_epochs(
        {
            "S-FC β=0": [(82.45,), (55.58,), (93.80,)],
            "S-FC β=1": [(82.52,), (55.96,), (93.66,)],
            "S-FC β=50": [(85.19,), (59.56,), (94.07,)],
        },
        (4000,),
    ),
}
"""Table 2, all after 4000 epochs; the rows of SGD stand in Table 1 too, there also after 400."""

FIGURE_3_LAYERS = {"conv1": 180_879_360, "fc1": 338_560_000, "fc2": 57_500}
"""Layer sizes that Figure 3's reference lines fit on CIFAR-10: α = 230, and fc1 of width 25α."""

FIGURE_3_NONZEROS = {
    "cifar10": {"conv1": 125_000, "fc1": 4_103_000, "fc2": 35_520},
    "cifar100": {"conv1": 101_700, "fc1": 28_630_000, "fc2": 484_600},
    "svhn": {"conv1": 1_365_000, "fc1": 13_190_000, "fc2": 39_800},
}
"""Figure 3: non-zero weights at the end of S-FC's training with β-LASSO."""

FIGURE_5 = {
    "cifar10": {
        "beta_lasso": {3: 95.82, 5: 94.95, 7: 94.46, 9: 93.52, 11: 93.28, 13: 92.68, 15: 92.30},
        "sgd": {3: 95.58, 5: 94.32, 7: 93.04, 9: 92.56, 11: 91.26, 13: 90.95, 15: 90.78},
    },
    "cifar100": {
        "beta_lasso": {3: 78.63, 5: 75.60, 7: 75.25, 9: 73.95, 11: 73.32, 13: 72.90, 15: 72.51},
        "sgd": {3: 77.85, 5: 74.79, 7: 73.28, 9: 71.14, 11: 68.85, 13: 69.48, 15: 67.21},
    },
    "svhn": {
        "beta_lasso": {3: 97.08, 5: 96.95, 7: 96.89, 9: 96.90, 11: 96.74, 13: 96.75, 15: 96.72},
        "sgd": {3: 97.00, 5: 96.87, 7: 96.88, 9: 96.67, 11: 96.58, 13: 96.53, 15: 96.64},
    },
}
"""Figure 5: ResNet18's test accuracy, %, by optimizer and kernel size; 400 epochs."""
