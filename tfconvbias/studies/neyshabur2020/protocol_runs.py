"""The runs of the protocol: settings judged on validation images, the best one measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tfconvbias.lazy import data, keras
from tfconvbias.studies.neyshabur2020.chosen_settings import write_settings
from tfconvbias.studies.neyshabur2020.protocol import Protocol
from tfconvbias.studies.neyshabur2020.protocol_grids import Setting
from tfconvbias.studies.progress import Progress
from tfconvbias.training import (
    Deadline,
    RunConfig,
    RunFolder,
    RunResult,
    TrainingDivergedError,
    build_dataset,
    dataset_label,
    run,
    slug,
)

_DIVERGED = "diverged"


class Trial(NamedTuple):
    """A setting and the validation accuracy that it reached, `None` where the loss diverged."""

    setting: Setting
    accuracy: float | None


class Outcome(NamedTuple):
    """What the protocol found for one row, on one data set, at one length.

    Attributes:
        row: The row's name.
        dataset: The data set as it was given.
        epochs: The length.
        trials: In the order of the grid.
        chosen: The setting of the best validation accuracy, the first of equals.
        fields: The fields of `RunConfig` that it decides at this length.
        tests: The runs with it that were measured on the test images, one per seed.
        diverged: Seeds whose loss diverged.
    """

    row: str
    dataset: str
    epochs: int
    trials: Sequence[Trial]
    chosen: Trial
    fields: dict[str, float]
    tests: Sequence[RunResult]
    diverged: Sequence[int]


class ProtocolRuns:
    """Trains what is not on disk yet, in one folder per data set, length and row.

    ```
    DATA SET/N-epochs/ROW/trials/SETTING/          judged on validation images
    DATA SET/N-epochs/ROW/tests/SETTING-seed-S/    chosen, and measured on test images
    settings.json                                  the chosen settings
    ```

    Each folder is checked on its own, so that rows, lengths, seeds and values can be added to a
    study, and processes with different rows can share one.

    Args:
        protocol: What to run.
    """

    def __init__(self, protocol: Protocol):
        self.protocol = protocol
        self.folder = Path(protocol.folder())
        self.deadline: Deadline = protocol.table.run.deadline()
        counts = [
            (epochs, protocol.num_settings(place) + len(protocol.table.seeds))
            for place, epochs in enumerate(protocol.epochs_list)
        ]
        times = len(protocol.table.datasets)
        epochs = times * sum(length * count for length, count in counts)
        self.progress = Progress(
            dict.fromkeys(protocol.table.rows, epochs),
            times * len(protocol.table.rows) * sum(count for _, count in counts),
            protocol.table.run.tell,
        )

    def outcomes(self) -> Iterator[list[Outcome]]:
        """Yield the outcomes of all rows after each length, one data set after the other.

        Raises:
            RunPausedError: If the time was over before the last run.
            TrainingDivergedError: If every setting of a row diverged.
        """
        protocol = self.protocol
        for name in protocol.table.datasets:
            # The images are the same for all seeds.
            drawn_with = protocol.table.run.drawn_with
            dataset = build_dataset(protocol.table.on(name).replace(subset_seed=drawn_with))
            candidates = {row: protocol.grid(row).settings() for row in protocol.table.rows}
            for place, epochs in enumerate(protocol.epochs_list):
                kept = protocol.num_settings(place)
                found = []
                for row in protocol.table.rows:
                    config = protocol.table.row(row, name).replace(
                        epochs=epochs, subset_seed=drawn_with
                    )
                    trials = self._search(row, config, dataset, candidates[row][:kept])
                    ranked = _ranked(trials)
                    if not ranked:
                        raise TrainingDivergedError(
                            f"Every setting of {row} diverged on {name} with {epochs} epochs."
                        )
                    candidates[row] = [trial.setting for trial in ranked]
                    chosen = ranked[0]
                    fields = chosen.setting.fields(config, dataset)
                    write_settings(
                        self.folder / "settings.json",
                        config,
                        {**fields, "learning_rate": config.learning_rate},
                    )
                    tests, diverged = self._test(row, config, dataset, chosen.setting)
                    found.append(
                        Outcome(row, name, epochs, trials, chosen, fields, tests, diverged)
                    )
                yield found

    def _search(
        self, row: str, config: RunConfig, dataset: data.ImageDataset, settings: Sequence[Setting]
    ) -> list[Trial]:
        config = config.replace(seed=self.protocol.search_seed)
        trials = []
        for number, setting in enumerate(settings, start=1):
            folder = self._row_folder(row, config) / "trials" / slug(setting.label)
            result = self._run(
                row,
                f"{row}, {config.epochs} epochs, setting {number} of {len(settings)} "
                f"({setting.label})",
                setting.apply(config, dataset).replace(run_dir=str(folder)),
                dataset,
                is_trial=True,
            )
            trials.append(Trial(setting, None if result is None else result.row["val_accuracy"]))
        # In the grid's order, whatever the length before has put first.
        order = [setting.label for setting in self.protocol.grid(row).settings()]
        return sorted(trials, key=lambda trial: order.index(trial.setting.label))

    def _test(
        self, row: str, config: RunConfig, dataset: data.ImageDataset, setting: Setting
    ) -> tuple[list[RunResult], list[int]]:
        config = config.replace(train_on_all=self.protocol.train_on_all)
        tests, diverged = [], []
        for seed in self.protocol.table.seeds:
            name = slug(f"{setting.label} seed {seed}" + " all" * config.train_on_all)
            result = self._run(
                row,
                f"{row}, {config.epochs} epochs, chosen setting ({setting.label}), seed {seed}",
                setting.apply(config, dataset).replace(
                    seed=seed, run_dir=str(self._row_folder(row, config) / "tests" / name)
                ),
                dataset,
                is_trial=False,
            )
            if result is None:
                diverged.append(seed)
            else:
                tests.append(result)
        return tests, diverged

    def _row_folder(self, row: str, config: RunConfig) -> Path:
        return self.folder / dataset_label(config.dataset) / f"{config.epochs}-epochs" / slug(row)

    def _run(
        self, row: str, text: str, config: RunConfig, dataset: data.ImageDataset, *, is_trial: bool
    ) -> RunResult | None:
        """One run, or `None` where its loss diverged, which its folder remembers."""
        folder = RunFolder(config.run_dir or "")
        is_new = folder.result() is None
        if is_new:
            self.deadline.pause_before(text)
            # What earlier runs compiled would stay in memory.
            keras.utils.clear_session()
        started = time.perf_counter()
        quiet = config.replace(verbose="silent") if config.verbose == "auto" else config
        result: RunResult | None = None
        try:
            result = run(quiet, dataset, self.deadline, is_trial=is_trial)
        except TrainingDivergedError as error:
            folder.write_result({_DIVERGED: str(error)})
        if result is not None and _DIVERGED in result.row:
            result = None
        if is_new:
            end = _end(result, is_trial)
            seconds = time.perf_counter() - started
            self.progress.done(row, f"{text}: {end}", epochs=config.epochs, seconds=seconds)
        else:
            self.progress.skip(row, epochs=config.epochs)
        return result


def _ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that did not diverge, best first, equals in the order of the grid."""
    return sorted(
        (trial for trial in trials if trial.accuracy is not None),
        key=lambda trial: -(trial.accuracy or 0.0),
    )


def _end(result: RunResult | None, is_trial: bool) -> str:
    if result is None:
        return "diverged"
    if is_trial:
        return f"validation {100 * result.row['val_accuracy']:.2f} %"
    return f"test {100 * result.row['test_accuracy']:.2f} %"
