"""KerasTuner's oracles, made to outlive crashed trials, silent workers and restarts."""

import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial

from tfconvbias.training import RunFolderError, place_of, read_sealed, write_json, write_sealed
from tfconvbias.tuning.search_config import SearchConfig

_NEVER = 10**9


class _Watched:
    """What all oracles here have beside KerasTuner's own.

    - Holds the time of each worker's last sign of life; `drop_silent` gives the trials of silent
      workers to others.
    - No worker is sent home while another's trial may still have to be repeated.
    - Its files and those of the trials are whole or absent, and sealed; KerasTuner would write them
      in place, so that a kill leaves a part.
    - An error inside the oracle ends the search and is kept in `failure`. KerasTuner would leave
      its lock taken, and every later call waiting.
    """

    trials: dict[str, Trial]
    ongoing_trials: dict[str, Trial]

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.last_contact: dict[str, float] = {}
        self.has_stopped = False
        self.failure: Exception | None = None

    def save(self) -> None:
        self._store(self._file(), self.get_state())  # type: ignore[attr-defined]

    def _save_trial(self, trial: Trial) -> None:
        self._store(self._file(trial.trial_id), trial.get_state())

    def reload(self) -> None:
        """Read what `save` wrote.

        Raises:
            RunFolderError: If a file is damaged, missing or belongs to another search.
        """
        state = self._stored(self._file())
        self.trials = {
            # A trial that the oracle does not know had not begun when the process was killed.
            trial_id: Trial.from_state(self._stored(self._file(trial_id)))
            for trial_id in state["start_order"]
        }
        self.set_state(state)  # type: ignore[attr-defined]
        # Those that were under way are run again.
        self._retry_queue += [t.trial_id for t in self.ongoing_trials.values()]  # type: ignore[attr-defined]
        self.ongoing_trials = {}

    def _file(self, trial_id: str | None = None) -> Path:
        folder = Path(self._project_dir)  # type: ignore[attr-defined]
        return folder / ("oracle.json" if trial_id is None else f"trial_{trial_id}/trial.json")

    def _store(self, file: Path, state: Mapping[str, Any]) -> None:
        write_sealed(file, state, place_of(file.parent) or "")

    def _stored(self, file: Path) -> dict[str, Any]:
        try:
            return read_sealed(file, place_of(file.parent))[0]
        except FileNotFoundError as error:
            raise RunFolderError(
                f"{file} is missing, so this search cannot be continued. Choose another --run-dir."
            ) from error

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        self.last_contact[tuner_id] = time.monotonic()
        if self.failure is None:
            try:
                trial = super().create_trial(tuner_id)  # type: ignore[misc]
            except Exception as error:
                self.failure = error
        if self.failure is not None:
            trial = Trial(self.get_space(), status="STOPPED")  # type: ignore[attr-defined]
            self.tuner_ids.discard(tuner_id)  # type: ignore[attr-defined]
        elif trial.status == "STOPPED" and self.ongoing_trials:
            trial.status = "IDLE"
            self.tuner_ids.add(tuner_id)  # type: ignore[attr-defined]
        if trial.status == "STOPPED":
            self.has_stopped = True
            del self.last_contact[tuner_id]
        return trial

    @keras_tuner.synchronized
    def get_trial(self, trial_id: str) -> Trial:
        # Workers ask for their trial now and then to show that they are alive.
        for tuner_id, trial in self.ongoing_trials.items():
            if trial.trial_id == trial_id:
                self.last_contact[tuner_id] = time.monotonic()
        return super().get_trial(trial_id)  # type: ignore[misc]

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        ongoing = {t.trial_id: tuner_id for tuner_id, t in self.ongoing_trials.items()}
        if trial.trial_id not in ongoing:
            # A worker that was given up, back with a trial that another has finished.
            return
        self.last_contact[ongoing[trial.trial_id]] = time.monotonic()
        try:
            super().end_trial(trial)  # type: ignore[misc]
        except Exception as error:
            self.failure = error
            self.ongoing_trials.pop(ongoing[trial.trial_id], None)

    @keras_tuner.synchronized
    def drop_silent(self, timeout: float) -> list[str]:
        """Forget the workers that were silent for `timeout` seconds and queue their trials again.

        Returns:
            Their ids.
        """
        now = time.monotonic()
        silent = [name for name, seen in self.last_contact.items() if now - seen > timeout]
        for tuner_id in silent:
            del self.last_contact[tuner_id]
            self.tuner_ids.discard(tuner_id)  # type: ignore[attr-defined]
            trial = self.ongoing_trials.get(tuner_id)
            if trial is not None:
                trial.status = "INVALID"
                trial.message = f"Worker {tuner_id} was silent for {timeout} s."
                super().end_trial(trial)  # type: ignore[misc]
        return silent

    @keras_tuner.synchronized
    def is_finished(self) -> bool:
        """Whether the search is over and every worker knows it."""
        return self.has_stopped and not self.ongoing_trials and not self.tuner_ids  # type: ignore[attr-defined]


class WholeFiles:
    """A tuner's own file, whose being there says that a search can be continued."""

    def save(self) -> None:
        if not self._is_worker():  # type: ignore[attr-defined]
            self.oracle.save()  # type: ignore[attr-defined]
        write_json(Path(self._get_tuner_fname()), {})  # type: ignore[attr-defined]

    def reload(self) -> None:
        if not self._is_worker():  # type: ignore[attr-defined]
            self.oracle.reload()  # type: ignore[attr-defined]


class GridOracle(_Watched, keras_tuner.Oracle):
    """Every combination of the declared choices, in order.

    What has been tried is read off the trials, so that a search goes on after a restart.
    `keras_tuner.oracles.GridSearchOracle` does not store its place in the grid.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The first combination that no trial has."""
        space = self.get_space().space
        tried = {
            tuple(trial.hyperparameters.values[hp.name] for hp in space)
            for trial in self.trials.values()
        }
        for values in itertools.product(*(hp.values for hp in space)):
            if values not in tried:
                names = [hp.name for hp in space]
                return {"status": "RUNNING", "values": dict(zip(names, values, strict=True))}
        return {"status": "STOPPED", "values": None}


class BayesianOracle(_Watched, keras_tuner.oracles.BayesianOptimizationOracle):
    """KerasTuner's Gaussian process, watched."""


class RandomOracle(_Watched, keras_tuner.oracles.RandomSearchOracle):
    """KerasTuner's random search, watched."""


class HyperbandOracle(_Watched, keras_tuner.oracles.HyperbandOracle):
    """KerasTuner's Hyperband, watched."""


def build_oracle(
    config: SearchConfig, space: keras_tuner.HyperParameters
) -> GridOracle | BayesianOracle | HyperbandOracle:
    """The oracle that the configuration asks for.

    A trial whose worker crashed or fell silent is repeated once.
    """
    options: dict[str, Any] = {
        "objective": objective(config),
        "hyperparameters": space,
        "seed": config.run.seed + 1,  # 0 would be a random one
        "max_retries_per_trial": 1,
        "max_consecutive_failed_trials": _NEVER,
    }
    oracle: GridOracle | BayesianOracle | HyperbandOracle
    if config.algorithm == "hyperband":
        oracle = HyperbandOracle(
            max_epochs=config.run.epochs, factor=config.hyperband_factor, **options
        )
    elif config.algorithm == "bayesian":
        oracle = BayesianOracle(max_trials=config.max_trials or 20, **options)
    else:
        oracle = GridOracle(max_trials=config.max_trials, **options)
    oracle.verbose = 0
    return oracle


def objective(config: SearchConfig) -> Any:
    """Validation accuracy, or the list of it and the price of the non-zero weights."""
    accuracy = keras_tuner.Objective("val_accuracy", "max")
    if config.objective == "accuracy":
        return accuracy
    return [accuracy, keras_tuner.Objective("nonzero_cost", "min")]
