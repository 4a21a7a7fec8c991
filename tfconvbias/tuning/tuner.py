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

from tfconvbias.training import RunFolder, RunPausedError
from tfconvbias.training.execution import stop_request
from tfconvbias.tuning.errors import SearchError
from tfconvbias.tuning.hypermodels import _TrainingHyperModel
from tfconvbias.tuning.oracles import WholeFiles

_POLL_SECONDS = 0.2
_SIGNS_OF_LIFE = 5
_ANSWER_SECONDS = 30.0


class RunTuner(WholeFiles, BaseTuner):
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
        self.lost: SearchError | None = None
        if self._is_worker():
            self.oracle.stub = _Chief(self.oracle.stub, min(worker_timeout, _ANSWER_SECONDS))

    def pre_create_trial(self) -> None:
        """Wait a little, since the oracle may answer at once that there is nothing to do yet."""
        time.sleep(_POLL_SECONDS)

    def run_trial(self, trial: Trial) -> dict[str, float]:
        """Train a trial's model.

        Returns:
            The metrics of the epoch that is best by the objective, the objective itself,
            `best_epoch` and `epochs`.

        Raises:
            keras_tuner.errors.FatalError: If the training was asked to stop, or the chief is lost;
                its cause is a `RunPausedError` or a `SearchError`.
        """
        hp = trial.hyperparameters
        run = self.space.config.run
        last_epoch = hp.values.get("tuner/epochs", run.epochs)
        folder = self._folder(trial.trial_id)
        keras.utils.clear_session()
        with self._signs_of_life(trial.trial_id):
            if "tuner/trial_id" in hp.values and folder.checkpoint() is None:
                folder.take_over(self._folder(hp.values["tuner/trial_id"]))
            try:
                history = self.space.fit(hp, self.space.build(hp), epochs=last_epoch, folder=folder)
            except RunPausedError as pause:
                # Any other error would fail the trial, and a retry of it would be stopped, too.
                raise keras_tuner.errors.FatalError(str(pause)) from (self.lost or pause)
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
                try:
                    self.oracle.get_trial(trial_id)
                except keras_tuner.errors.FatalError as error:
                    self.lost = error.__cause__
                    stop_request.set()
                    return

        teller = threading.Thread(target=tell, name="signs of life", daemon=True)
        teller.start()
        try:
            yield
        finally:
            is_over.set()
            teller.join()


class _Chief:
    """A worker's connection to the chief, for which KerasTuner would wait an hour.

    Args:
        stub: The connection's calls.
        seconds: How long the chief may take to answer.
    """

    def __init__(self, stub: Any, seconds: float):
        self._stub = stub
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        import grpc

        def ask(request: Any, **options: Any) -> Any:
            try:
                return getattr(self._stub, name)(request, **{**options, "timeout": self._seconds})
            except grpc.RpcError as error:
                lost = SearchError(
                    f"The search's chief does not answer ({error.code().name}). Start chief and "
                    "workers again, with --resume, to continue the search."
                )
                # Of any other error KerasTuner prints the trace, and takes it for the trial's own.
                raise keras_tuner.errors.FatalError(str(lost)) from lost

        return ask


def values_of(trial: Trial) -> dict[str, Any]:
    """A trial's values without Hyperband's own entries."""
    values = trial.hyperparameters.values
    return {name: value for name, value in values.items() if not name.startswith("tuner/")}
