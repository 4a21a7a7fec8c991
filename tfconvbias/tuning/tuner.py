"""The tuner: one trial is one run, watched while it lasts."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial

from tfconvbias.training import RunFolder
from tfconvbias.tuning.hypermodels import _TrainingHyperModel

_POLL_SECONDS = 0.2
_SIGNS_OF_LIFE = 5


class RunTuner(BaseTuner):
    """Runs trials of a search, in this process alone or as one worker of several.

    A Hyperband trial that goes on from another one's continues its model and its optimizer, so it
    equals the longer run from the start.

    Args:
        oracle: from `build_oracle`.
        space: the hypermodel.
        directory: the search's folder.
        project_name: subfolder for the trials.
        worker_timeout: the chief's; a worker gives several signs of life in this time.
    """

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        space: _TrainingHyperModel,
        directory: Path,
        project_name: str,
        worker_timeout: float,
    ):
        self.space = space
        self.worker_timeout = worker_timeout
        self.goes_on = isinstance(oracle, keras_tuner.oracles.HyperbandOracle)
        # Without a hypermodel of its own KerasTuner builds none to find the search space.
        super().__init__(oracle, directory=str(directory), project_name=project_name)

    def pre_create_trial(self) -> None:
        """Wait a little, since the oracle may answer at once that there is nothing to do yet."""
        time.sleep(_POLL_SECONDS)

    def run_trial(self, trial: Trial) -> dict[str, float]:
        """Train a trial's model.

        Returns:
            The metrics of the epoch that is best by the objective, the objective itself,
            `best_epoch` and `epochs`.
        """
        hp = trial.hyperparameters
        run = self.space.config.run
        last_epoch = hp.values.get("tuner/epochs", run.epochs)
        folder = self._folder(trial.trial_id)
        keras.utils.clear_session()
        with self._signs_of_life(trial.trial_id):
            if "tuner/trial_id" in hp.values and folder.checkpoint() is None:
                folder.take_over(self._folder(hp.values["tuner/trial_id"]))
            history = self.space.fit(hp, self.space.build(hp), epochs=last_epoch, folder=folder)
            if not self.goes_on:
                folder.drop_checkpoints()
        own = hp.values.get("tuner/initial_epoch", 0)
        best = self._best_epoch(history.history, own) | {"epochs": float(last_epoch)}
        values = ", ".join(f"{name} {value:g}" for name, value in values_of(trial).items())
        run.tell(
            f"trial {trial.trial_id}: validation {100 * best['val_accuracy']:.2f} %, "
            f"non-zero {100 * best['nonzero_share']:.2f} % ({values})"
        )
        return best

    def _best_epoch(self, history: dict[str, list[float]], after: int) -> dict[str, float]:
        objective = self.oracle.objective
        best: dict[str, float] = {}
        for number, epoch in enumerate(history["epoch"]):
            if epoch <= after:
                continue
            metrics = {name: float(values[number]) for name, values in history.items()}
            metrics["nonzero_cost"] = self.space.config.nonzero_price * metrics["nonzero_share"]
            metrics[objective.name] = objective.get_value(metrics)
            metrics["best_epoch"] = epoch
            if not best or objective.better_than(metrics[objective.name], best[objective.name]):
                best = metrics
        return best

    def _folder(self, trial_id: str) -> RunFolder:
        return RunFolder(Path(self.get_trial_dir(trial_id)) / "run")

    @contextlib.contextmanager
    def _signs_of_life(self, trial_id: str) -> Iterator[None]:
        """Ask the chief for the trial now and then, as long as the trial lasts."""
        is_over = threading.Event()

        def tell() -> None:
            while not is_over.wait(self.worker_timeout / _SIGNS_OF_LIFE):
                self.oracle.get_trial(trial_id)

        teller = threading.Thread(target=tell, name="signs of life", daemon=True)
        teller.start()
        try:
            yield
        finally:
            is_over.set()
            teller.join()


def values_of(trial: Trial) -> dict[str, Any]:
    """A trial's values without Hyperband's own entries."""
    values = trial.hyperparameters.values
    return {name: value for name, value in values.items() if not name.startswith("tuner/")}
