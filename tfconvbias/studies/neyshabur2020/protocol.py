"""The paper's protocol: the best of a grid for every row, by validation accuracy; then the test."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfconvbias.studies.neyshabur2020.paper_table import PaperTable
from tfconvbias.studies.neyshabur2020.protocol_grids import Grid
from tfconvbias.training import Config, ConfigError, option, slug


def kernel_size_row(size: int, optimizer: str) -> str:
    """The name of a point of Figure 5 among the rows."""
    return f"ResNet18 {size}×{size}" + (" β-LASSO" if optimizer == "beta_lasso" else "")


@dataclasses.dataclass(frozen=True)
class Protocol(Config):
    """Rows of a table, each with the best of equally many settings, at several lengths.

    At every length and for every row:

    1. every setting of the row's grid is trained with one seed and judged by the validation
       accuracy after the last epoch, no test image being read;
    2. the best setting is trained anew with other seeds;
    3. only these runs are measured on the test images.

    SGD's grid is that of the paper: momentum × weight decay × dropout, 20 settings. The paper tries
    5 × 5 values of the two λ, with and without dropout, for each of three β. To give β-LASSO
    as many settings as SGD, its grid here is total pull × cutoff × dropout: the pull λ Σ η of the
    layers that stand for convolutions, so that the same grid serves every length, and the cutoff
    β λ as a share of the standard deviation of the first layer's initial weights, in ResNet18 of
    the last stage's. The other layers have a fixed share of this λ. ResNet18 has no dropout.

    Args:
        table: The rows, and what all runs share. Its `run_dir` is the folder of the study.

    Raises:
        ConfigError: If the rows' grids differ in length, or a value is out of its range.
    """

    fixed = (
        *PaperTable.fixed,
        *("epochs", "momentum", "weight_decay", "dropout_rate", "l1", "l1_conv"),
        *("settings", "tensorboard"),
    )

    table: PaperTable = dataclasses.field(default_factory=PaperTable)

    epochs_list: tuple[int, ...] = option((400,), "lengths of training, in epochs, rising")
    num_kept: tuple[int, ...] = option(
        (),
        "settings of each row that go on to the second length, to the third, and so on: those best "
        "at the length before; none: every length tries all",
    )
    search_seed: int = option(0, "seed of the runs that are judged on validation images")
    momenta: tuple[float, ...] = option((0.0, 0.9), "momenta of SGD")
    weight_decays: tuple[float, ...] = option(
        (0.0, 1e-4, 2e-4, 5e-4, 1e-3), "coupled weight decays of SGD"
    )
    pulls: tuple[float, ...] = option(
        (0.0125, 0.025, 0.05, 0.1, 0.2), "total pulls of β-LASSO, λ times the sum of the rates"
    )
    cutoffs: tuple[float, ...] = option(
        (0.1, 0.2),
        "cutoffs βλ of β-LASSO by the deviation of the initial weights of layer 1, of ResNet18's "
        "last stage",
    )
    l1_ratio: float = option(
        0.25, "λ of the layers dense in every family by that of the layers for convolutions"
    )
    dropout_rates: tuple[float, ...] = option(
        (0.0, 0.5), "rates before the last two dense layers, of every row that has them"
    )
    train_on_all: bool = option(
        False, "train the chosen settings on the validation images, too, before the test"
    )

    def __post_init__(self):
        super().__post_init__()
        grids = ("momenta", "weight_decays", "pulls", "cutoffs", "dropout_rates")
        self._distinct("epochs_list", *grids)
        self._all_positive("epochs_list", "num_kept")
        self._at_least_zero("l1_ratio")
        self._seeds("search_seed")
        if list(self.epochs_list) != sorted(self.epochs_list):
            raise ConfigError(f"epochs_list must rise. Received: epochs_list={self.epochs_list}")
        lengths = {name: len(self.grid(name)) for name in self.table.rows}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ConfigError(
                "Every row must have equally many settings. Change --momenta, --weight-decays, "
                f"--pulls, --cutoffs, and beside ResNet18 --dropout-rates. Received: {shown}"
            )
        counts = (next(iter(lengths.values()), 1), *self.num_kept)
        if self.num_kept and (
            len(counts) != len(self.epochs_list) or sorted(counts, reverse=True) != list(counts)
        ):
            raise ConfigError(
                "num_kept must hold a number for each length but the first, none above the one "
                f"before. Received: num_kept={self.num_kept}, epochs_list={self.epochs_list}, "
                f"{counts[0]} settings"
            )

    def grid(self, row: str) -> Grid:
        """The settings that are tried for a row.

        Raises:
            ConfigError: If a value is out of its range.
        """
        definition = self.table.definitions[row]
        if definition["optimizer"] == "sgd":
            choices = {"momentum": self.momenta, "weight_decay": self.weight_decays}
        else:
            choices = {"pull": self.pulls, "cutoff": self.cutoffs}
        dropout = (0.0,) if definition["family"] == "resnet18" else self.dropout_rates
        return Grid({**choices, "dropout_rate": dropout}, self.l1_ratio)

    def num_settings(self, length: int) -> int:
        """How many settings of each row are tried at a length, by its place in `epochs_list`."""
        if length and self.num_kept:
            return self.num_kept[length - 1]
        return len(self.grid(self.table.rows[0]))

    def folder(self) -> str:
        """The folder of the study."""
        return self.table.run.run_dir or f"runs/{slug(self.table.title)}"

    def definitions(self) -> Mapping[str, Mapping[str, Any]]:
        """The chosen rows, with their widths."""
        return self.table.variants()
