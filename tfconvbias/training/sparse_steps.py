"""β-LASSO's runs at the cost of the weights that are left, and the file that says what it saved."""

import csv
import dataclasses

import keras

from tfconvbias.callbacks import CertifiedSparsity, LayerEpoch
from tfconvbias.training.errors import ConfigError, RunFolderError
from tfconvbias.training.files import write_rows
from tfconvbias.training.run_config import RunConfig
from tfconvbias.training.run_folder import RunFolder


class SparseSteps(CertifiedSparsity):
    """`CertifiedSparsity` that writes its report to the run folder, and nothing to the history.

    So the history has the same columns with it and without it, and a run may be continued either
    way.

    Args:
        config: The run.
        folder: Where it is kept, with `certified_sparsity.csv`: one row per epoch and layer, with
            the columns of `callbacks.LayerEpoch`, epochs counted from 1.

    Raises:
        RunFolderError: When training goes on, if that file is damaged.
    """

    def __init__(self, config: RunConfig, folder: RunFolder):
        super().__init__(batch_size=config.batch_size, verbose=0)
        self.config = config
        self.folder = folder
        self.file = folder.path / "certified_sparsity.csv"
        self._rows: list[dict] = []

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Keep the rows of the epochs before the checkpoint from which the run goes on."""
        super().on_train_begin(logs)
        last = max(self.folder.history().get("epoch", []), default=0)
        self._rows = [row for row in self._stored() if int(row["epoch"]) <= last]

    def _stored(self) -> list[dict]:
        if not self.file.exists():
            return []
        columns = [field.name for field in dataclasses.fields(LayerEpoch)]
        try:
            text = self.file.read_text(encoding="utf-8")
            reader = csv.DictReader(text.splitlines())
            rows = list(reader)
            epochs: dict[int, list[str]] = {}
            for row in rows:
                epochs.setdefault(int(row["epoch"]), []).append(row["layer"])
            names = sorted(layer.name for layer in self._layers)
            is_whole = reader.fieldnames == columns and text.endswith("\n")
            is_whole &= all(sorted(found) == names for found in epochs.values())
            is_whole &= all(row.keys() == set(columns) and None not in row.values() for row in rows)
        except (OSError, ValueError, TypeError, KeyError, csv.Error):
            is_whole = False
        if not is_whole:
            raise RunFolderError(
                f"{self.file} is damaged. It only reports on epochs that are over: remove it, and "
                "the same command with --resume continues."
            )
        return rows

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Write the epoch's rows."""
        super().on_epoch_end(epoch)
        done = self.report[-len(self._plans) :]
        self._rows += [{**dataclasses.asdict(row), "epoch": row.epoch + 1} for row in done]
        write_rows(self.file, self._rows)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Say in one line for each layer what came of it."""
        super().on_train_end(logs)
        for layer in dict.fromkeys(row.layer for row in self.report):
            rows = [row for row in self.report if row.layer == layer]
            sparse = [row for row in rows if row.steps]
            text = f"{layer}: trained on its non-zeros in {len(sparse)} of {len(rows)} epochs"
            if sparse:
                text += f", in the last of them {sparse[-1].sparse_ms:.1f} ms a step"
                if sparse[-1].dense_ms:
                    text += f" against {sparse[-1].dense_ms:.1f}"
            self.config.tell(f"{text}; {self.file}")


def sparse_steps(
    config: RunConfig, model: keras.Model, folder: RunFolder
) -> list[keras.callbacks.Callback]:
    """What trains a compiled model on the weights that are left, if the configuration asks for it.

    Args:
        config: The run.
        model: Its compiled model.
        folder: Where the run is kept.

    Raises:
        ConfigError: If such a run would not be the dense run.
    """
    if not config.is_certified:
        return []
    steps = SparseSteps(config, folder)
    try:
        steps.check(model)
    except ValueError as error:
        raise ConfigError(f"certified_sparsity: {error}") from error
    return [steps]
