"""The runs of the protocol: settings judged on validation images, the best one measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tfconvbias.arguments import checked
from tfconvbias.lazy import data, keras
from tfconvbias.studies.neyshabur2020.chosen_settings import write_settings
from tfconvbias.studies.neyshabur2020.protocol import Protocol
from tfconvbias.studies.neyshabur2020.protocol_grids import Setting
from tfconvbias.training import (
    Finished,
    MissingRunsError,
    RunConfig,
    RunFolder,
    RunResult,
    Task,
    TrainingDivergedError,
    Workplace,
    dataset_label,
    run,
    run_tasks,
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


class Place(NamedTuple):
    """A row of the protocol, on one data set, at one length."""

    row: str
    dataset: str
    length: int
    """Its place in `epochs_list`."""


@checked
class ProtocolRuns:
    """Trains what is not on disk yet, in one folder per data set, length and row.

    ```
    DATA SET/N-epochs/ROW/trials/SETTING/          judged on validation images
    DATA SET/N-epochs/ROW/tests/SETTING-seed-S/    chosen, and measured on test images
    settings.json                                  the chosen settings
    logs/                                          what the runs of other processes print
    ```

    Each folder is checked on its own, so that rows, lengths, seeds and values can be added to a
    study, and processes with different rows can share one. A run that depends on others, such as
    that of a chosen setting, reads their folders.

    Args:
        protocol: What to run.
    """

    def __init__(self, protocol: Protocol):
        self.protocol = protocol
        self.deadline = protocol.table.run.deadline()
        self.missing: MissingRunsError | None = None
        """Which runs came to no end, since their processes were lost, once `outcomes` is."""

    def outcomes(self) -> Iterator[list[Outcome]]:
        """Yield the outcomes of all rows after each length, one data set after the other.

        Where processes of some runs were lost, what is there comes last: rows of which all
        settings were tried and at least one seed of the chosen setting was measured.

        Raises:
            RunPausedError: If the time was over before the last run.
            TrainingDivergedError: If every setting of a row diverged.
        """
        protocol = self.protocol
        work = Workplace(self.deadline)
        groups = {
            (dataset, length): self._tasks(dataset, length)
            for dataset in protocol.table.datasets
            for length in range(len(protocol.epochs_list))
        }
        tasks = [task for group in groups.values() for task in group]
        left = {key: {task.name for task in group} for key, group in groups.items()}
        kept = protocol.table.run
        ended = run_tasks(tasks, protocol.table, kept, protocol.folder(), deadline=self.deadline)
        try:
            for task, _ in ended:
                for names in left.values():
                    names.discard(task.name)
                # In their order, whichever ends first.
                while left and not next(iter(left.values())):
                    place = next(iter(left))
                    del left[place]
                    yield self._outcomes(*place, work, set())
        except MissingRunsError as error:
            self.missing = error
        for place, names in left.items():
            yield self._outcomes(*place, work, names)

    def _outcomes(
        self, dataset: str, length: int, work: Workplace, missing: set[str]
    ) -> list[Outcome]:
        """The outcomes of the rows that lack no setting, and not every seed of the chosen one."""
        protocol = self.protocol
        places = [Place(row, dataset, length) for row in protocol.table.rows]
        return [
            self._outcome(place, work)
            for place in places
            if not missing & set(_trial_names(protocol, place))
            and not missing >= set(_test_names(protocol, place))
        ]

    def _tasks(self, dataset: str, length: int) -> list[Task]:
        """The trials and tests of all rows on a data set, at one length."""
        protocol = self.protocol
        epochs = protocol.epochs_list[length]
        tasks = []
        for row in protocol.table.rows:
            place = Place(row, dataset, length)
            trials = _trial_names(protocol, place)
            # At a later length the best settings of the one before go on.
            earlier = _trial_names(protocol, place._replace(length=length - 1)) if length else ()
            tasks += [
                Task(
                    name,
                    run_trial,
                    protocol,
                    {"place": place, "number": number},
                    needs=tuple(earlier),
                    kind=row,
                    epochs=epochs,
                )
                for number, name in enumerate(trials)
            ]
            tasks += [
                Task(
                    name,
                    run_test,
                    protocol,
                    {"place": place, "seed": seed},
                    needs=tuple(trials),
                    kind=row,
                    epochs=epochs,
                )
                for seed, name in zip(
                    protocol.table.seeds, _test_names(protocol, place), strict=True
                )
            ]
        return tasks

    def _outcome(self, place: Place, work: Workplace) -> Outcome:
        """What the run folders say of a row; the chosen settings are written down."""
        protocol = self.protocol
        config = _config(protocol, place)
        dataset = work.dataset(config)
        trials = _trials(protocol, place, dataset)
        chosen = _best(protocol, place, trials)
        fields = chosen.setting.fields(config, dataset)
        write_settings(
            Path(protocol.folder()) / "settings.json",
            config,
            {**fields, "learning_rate": config.learning_rate},
        )
        tests, diverged = [], []
        for seed in protocol.table.seeds:
            folder = RunFolder(_test(protocol, place, dataset, chosen.setting, seed).run_dir or "")
            row = folder.result() or {}
            if _DIVERGED in row:
                diverged.append(seed)
            elif row:
                tests.append(RunResult(folder, row, folder.history()))
        return Outcome(
            place.row, place.dataset, config.epochs, trials, chosen, fields, tests, diverged
        )


def run_trial(work: Workplace, protocol: Protocol, *, place: Place, number: int) -> Finished:
    """Train one setting of a row and judge it on validation images, as a task.

    Args:
        work: Where it is done.
        protocol: The protocol.
        place: The row.
        number: Of the setting among those that are tried at this length, from 0.
    """
    config = _config(protocol, place)
    dataset = work.dataset(config)
    settings = _candidates(protocol, place, dataset)
    if number >= len(settings):
        return Finished("none left, since some diverged at the length before", is_new=False)
    setting = settings[number]
    name = f"{_title(protocol, place)}, setting {number + 1} of {len(settings)} ({setting.label})"
    trained = _train(_trial(protocol, place, dataset, setting), work, name, is_trial=True)
    return trained._replace(text=f"{setting.label}: {trained.text}")


def run_test(work: Workplace, protocol: Protocol, *, place: Place, seed: int) -> Finished:
    """Train a row's chosen setting with one seed and measure it on the test images, as a task.

    Raises:
        TrainingDivergedError: If every setting diverged.
    """
    dataset = work.dataset(_config(protocol, place))
    chosen = _best(protocol, place, _trials(protocol, place, dataset)).setting
    name = f"{_title(protocol, place)}, chosen setting ({chosen.label}), seed {seed}"
    trained = _train(_test(protocol, place, dataset, chosen, seed), work, name, is_trial=False)
    return trained._replace(text=f"{chosen.label}: {trained.text}")


def _train(config: RunConfig, work: Workplace, name: str, *, is_trial: bool) -> Finished:
    """One run; where its loss diverges, its folder remembers so."""
    folder = RunFolder(config.run_dir or "")
    is_new = folder.result() is None
    if is_new:
        work.deadline.pause_before(name)
        # What earlier runs compiled would stay in memory.
        keras.utils.clear_session()
    quiet = config.replace(verbose="silent") if config.verbose == "auto" else config
    try:
        row = run(quiet, work.dataset(config), work.deadline, is_trial=is_trial).row
    except TrainingDivergedError as error:
        row = {_DIVERGED: str(error)}
        folder.write_result(row)
    if _DIVERGED in row:
        return Finished("diverged", is_new)
    split, column = ("validation", "val_accuracy") if is_trial else ("test", "test_accuracy")
    return Finished(f"{split} {100 * row[column]:.2f} %", is_new)


def _config(protocol: Protocol, place: Place) -> RunConfig:
    """What all runs of a row share at one length; the images are the same for all seeds."""
    return protocol.table.row(place.row, place.dataset).replace(
        epochs=protocol.epochs_list[place.length], subset_seed=protocol.table.run.drawn_with
    )


def _trial(
    protocol: Protocol, place: Place, dataset: data.ImageDataset, setting: Setting
) -> RunConfig:
    config = _config(protocol, place).replace(seed=protocol.search_seed)
    folder = _row_folder(protocol, place) / "trials" / slug(setting.label)
    return setting.apply(config, dataset).replace(run_dir=str(folder))


def _test(
    protocol: Protocol, place: Place, dataset: data.ImageDataset, setting: Setting, seed: int
) -> RunConfig:
    config = _config(protocol, place).replace(train_on_all=protocol.train_on_all, seed=seed)
    name = slug(f"{setting.label} seed {seed}" + " all" * config.train_on_all)
    folder = _row_folder(protocol, place) / "tests" / name
    return setting.apply(config, dataset).replace(run_dir=str(folder))


def _candidates(protocol: Protocol, place: Place, dataset: data.ImageDataset) -> list[Setting]:
    """The settings that are tried at a length: all, or the best of the length before."""
    if not place.length:
        return protocol.grid(place.row).settings()
    earlier = _trials(protocol, place._replace(length=place.length - 1), dataset)
    return [trial.setting for trial in _ranked(earlier)][: protocol.num_settings(place.length)]


def _trials(protocol: Protocol, place: Place, dataset: data.ImageDataset) -> list[Trial]:
    """The finished trials of a length, in the order of the grid."""
    trials = []
    for setting in _candidates(protocol, place, dataset):
        row = RunFolder(_trial(protocol, place, dataset, setting).run_dir or "").result() or {}
        trials.append(Trial(setting, row.get("val_accuracy")))
    order = [setting.label for setting in protocol.grid(place.row).settings()]
    return sorted(trials, key=lambda trial: order.index(trial.setting.label))


def _ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that did not diverge, best first, equals in the order of the grid."""
    return sorted(
        (trial for trial in trials if trial.accuracy is not None),
        key=lambda trial: -(trial.accuracy or 0.0),
    )


def _best(protocol: Protocol, place: Place, trials: Sequence[Trial]) -> Trial:
    ranked = _ranked(trials)
    if not ranked:
        raise TrainingDivergedError(
            f"Every setting of {place.row} diverged on {place.dataset} with "
            f"{protocol.epochs_list[place.length]} epochs."
        )
    return ranked[0]


def _trial_names(protocol: Protocol, place: Place) -> list[str]:
    num = protocol.num_settings(place.length)
    return [f"{_title(protocol, place)}, setting {k} of {num}" for k in range(1, num + 1)]


def _test_names(protocol: Protocol, place: Place) -> list[str]:
    title = _title(protocol, place)
    return [f"{title}, chosen setting, seed {seed}" for seed in protocol.table.seeds]


def _title(protocol: Protocol, place: Place) -> str:
    epochs = protocol.epochs_list[place.length]
    return f"{place.row}, {dataset_label(place.dataset)}, {epochs} epochs"


def _row_folder(protocol: Protocol, place: Place) -> Path:
    return (
        Path(protocol.folder())
        / dataset_label(place.dataset)
        / f"{protocol.epochs_list[place.length]}-epochs"
        / slug(place.row)
    )
