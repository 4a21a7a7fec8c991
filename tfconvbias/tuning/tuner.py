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
        last_epoch = hp.values.get("tuner/epochs", self.space.config.epochs)
        first_epoch = 0
        keras.utils.clear_session()
        with self._signs_of_life(trial.trial_id):
            if "tuner/trial_id" in hp.values:
                first_epoch = hp.values["tuner/initial_epoch"]
                model = keras.saving.load_model(self._model_file(hp.values["tuner/trial_id"]))
            else:
                model = self.space.build(hp)
            history = self.space.fit(hp, model, initial_epoch=first_epoch, epochs=last_epoch)
            if self.goes_on:
                model.save(self._model_file(trial.trial_id))
        best = self._best_epoch(history.history, first_epoch) | {"epochs": float(last_epoch)}
        if self.space.config.verbose != "silent":
            values = ", ".join(f"{name} {value:g}" for name, value in values_of(trial).items())
            print(
                f"trial {trial.trial_id}: validation {100 * best['val_accuracy']:.2f} %, "
                f"non-zero {100 * best['nonzero_share']:.2f} % ({values})",
                flush=True,
            )
        return best

    def _best_epoch(self, history: dict[str, list[float]], first_epoch: int) -> dict[str, float]:
        objective = self.oracle.objective
        best: dict[str, float] = {}
        for number in range(len(history["loss"])):
            metrics = {name: float(values[number]) for name, values in history.items()}
            metrics["nonzero_cost"] = self.space.config.nonzero_price * metrics["nonzero_share"]
            metrics[objective.name] = objective.get_value(metrics)
            metrics["best_epoch"] = float(first_epoch + number + 1)
            if not best or objective.better_than(metrics[objective.name], best[objective.name]):
                best = metrics
        return best

    def _model_file(self, trial_id: str) -> Path:
        return Path(self.get_trial_dir(trial_id)) / "last.keras"

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
