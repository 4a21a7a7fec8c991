"""Tables 1 and 2: each row's network and training, the one place from which recipes take them.

The paper picks momentum, weight decay, λ and dropout for each row by validation accuracy and does
not print what it picked. The SGD rows take one point of its grid, momentum 0.9 and weight decay
5e-4; the β-LASSO rows have neither, as in its Algorithm 1, and the two λ of a public reproduction
on CIFAR-10.
"""

from collections.abc import Mapping
from typing import Any

from tfconvbias.studies.neyshabur2020 import paper_targets
from tfconvbias.studies.neyshabur2020.paper_table import PaperTable
from tfconvbias.studies.neyshabur2020.protocol import Protocol, kernel_size_row
from tfconvbias.training import RunConfig

_RUN = RunConfig(
    base_channels=150,
    augment="fast_autoaugment",
    momentum=0.9,
    weight_decay=5e-4,
    l1_conv=2e-5,
    l1=5e-6,
    epochs=400,
    batch_size=512,
    precision="auto",
    device_epochs="auto",
)

_SGD = {"optimizer": "sgd"}

_TABLE_1: Mapping[str, Mapping[str, Any]] = {
    "D-CONV": {"family": "d", "connectivity": "conv", **_SGD},
    "D-LOCAL": {"family": "d", "connectivity": "local", **_SGD},
    "D-FC": {"family": "d", "connectivity": "dense", **_SGD},
    "S-CONV": {"family": "s", "connectivity": "conv", **_SGD},
    "S-LOCAL": {"family": "s", "connectivity": "local", **_SGD},
    "S-FC": {"family": "s", "connectivity": "dense", **_SGD},
    "3-FC": {"family": "three_fc", "connectivity": "dense", **_SGD},
}

S_FC_BETA_LASSO: Mapping[str, Any] = {
    "family": "s",
    "connectivity": "dense",
    "optimizer": "beta_lasso",
    "momentum": 0.0,
    "weight_decay": 0.0,
}
"""S-FC with β-LASSO, the run's own β."""

TABLE_1 = PaperTable(
    title="Table 1",
    subject="D-, S- and 3-FC networks with SGD",
    run=_RUN,
    datasets=paper_targets.PAPER_DATASETS,
    definitions=_TABLE_1,
    rows=tuple(_TABLE_1),
    targets=paper_targets.TABLE_1,
)
"""D-, S- and 3-FC networks with SGD, after 400 epochs (or 4000)."""

_TABLE_2: Mapping[str, Mapping[str, Any]] = {
    **{f"{name} SGD": _TABLE_1[name] for name in ("S-CONV", "S-LOCAL", "3-FC", "S-FC")},
    **{f"S-FC β={beta}": {**S_FC_BETA_LASSO, "beta": float(beta)} for beta in (0, 1, 50)},
}

TABLE_2 = PaperTable(
    title="Table 2",
    subject="S-FC with SGD and with β-LASSO",
    run=_RUN.replace(epochs=4000),
    datasets=paper_targets.PAPER_DATASETS,
    definitions=_TABLE_2,
    rows=tuple(_TABLE_2),
    targets=paper_targets.TABLE_2,
)
"""S-FC with SGD and with β-LASSO beside the other networks with SGD, after 4000 epochs."""

_KERNEL_SIZES = tuple(paper_targets.FIGURE_5["cifar10"]["sgd"])
_FIGURE_5: Mapping[str, Mapping[str, Any]] = {
    kernel_size_row(size, optimizer): {
        "family": "resnet18",
        "connectivity": "conv",
        "kernel_size": size,
        "optimizer": optimizer,
    }
    for size in _KERNEL_SIZES
    for optimizer in ("sgd", "beta_lasso")
}

PROTOCOL = Protocol(
    table=PaperTable(
        title="Protocol",
        run=_RUN,
        datasets=("cifar10",),
        seeds=(1, 2, 3),
        definitions={**_TABLE_1, "S-FC β-LASSO": S_FC_BETA_LASSO, **_FIGURE_5},
        rows=("S-CONV", "S-LOCAL", "S-FC", "S-FC β-LASSO"),
        targets={
            **paper_targets.TABLE_1,
            "S-FC β-LASSO": paper_targets.TABLE_2["S-FC β=50"],
            **{
                kernel_size_row(size, optimizer): {
                    dataset: {400: curves[optimizer][size]}
                    for dataset, curves in paper_targets.FIGURE_5.items()
                }
                for size in _KERNEL_SIZES
                for optimizer in ("sgd", "beta_lasso")
            },
        },
    ),
)
"""Rows of both tables and the points of Figure 5, each with the best of equally many settings; the
seeds are not that of the search."""
