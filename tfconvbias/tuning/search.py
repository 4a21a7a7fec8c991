"""Run a search, alone or as the chief or a worker of several processes."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tfconvbias.arguments import checked
from tfconvbias.lazy import data, keras, keras_tuner
from tfconvbias.optional import require
from tfconvbias.training import RunFolder, RunPausedError, build_dataset, with_precision
from tfconvbias.tuning.errors import SearchError
from tfconvbias.tuning.results import SearchResults
from tfconvbias.tuning.search_config import SearchConfig

if TYPE_CHECKING:
    from tfconvbias.tuning.oracles import GridOracle
    from tfconvbias.tuning.tuner import RunTuner

_TRIALS = "trials"


@checked
def search(config: SearchConfig, dataset: data.ImageDataset | None = None) -> SearchResults | None:
    """Search for the configuration of the best validation accuracy; test images are not touched.

    Several processes share a search as KerasTuner's do, by three environment variables that are
    set before Python starts: `KERASTUNER_TUNER_ID` (`chief` for one process, other names for the
    workers), `KERASTUNER_ORACLE_IP` and `KERASTUNER_ORACLE_PORT` of the chief. All of them call
    `search` with the same configuration and see the same folder. The chief trains nothing. When a
    worker is silent for `config.worker_timeout` seconds its trial goes to another worker; when no
    worker is left the chief stops with an error, and the search can be continued.

    Trials are written to disk as they end, so a search that was killed continues with
    `config.resume`; trials that were under way are run again.

    Args:
        config: what to search, and where to keep it (`searches/<name>` when `run_dir` is `None`).
        dataset: the configured data set where the caller has loaded it already.

    Returns:
        The results; `None` in a worker.

    Raises:
        RunFolderError: If the folder holds another search, or this one without `config.resume`.
        RunPausedError: If the process was asked to stop; the trial goes on where it was stopped.
        SearchError: If no trial succeeded, the chief has no worker left, or a worker no chief.
        data.DatasetUnavailableError: If the data set is not available.
    """
    require("keras_tuner", "tuner", "A search")
    from tfconvbias.tuning.hypermodels import hypermodel
    from tfconvbias.tuning.oracles import build_oracle
    from tfconvbias.tuning.tuner import RunTuner

    role = _role()
    config = config.replace(run=with_precision(config.run))
    run = config.run
    if dataset is None:
        dataset = build_dataset(run)
    space = hypermodel(config, dataset)
    hp = keras_tuner.HyperParameters()
    space.declare_hyperparameters(hp)
    folder = RunFolder(run.run_dir or f"searches/{run.default_run_name()}")
    if role == "worker":
        _wait_for_chief(folder, config.worker_timeout)
        folder.check_same(config, dataset, "search")
    else:
        is_claimed = folder.check(config, run.resume, dataset, "search")

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(run.precision)
    # The chief's lock stands for all of its workers.
    lock = contextlib.nullcontext() if role == "worker" else folder.locked()
    try:
        with lock, without_deprecations():
            if role != "worker" and not is_claimed:
                folder.claim(config, dataset)
            oracle = build_oracle(config, hp)
            tuner = RunTuner(oracle, space, folder.path, _TRIALS, config.worker_timeout)
            if role == "chief":
                _lead(tuner, oracle, config)
            else:
                tuner.save()
                _work(tuner)
    finally:
        keras.config.set_dtype_policy(policy)
    if role == "worker":
        return None
    if oracle.failure is not None:
        raise SearchError(f"The search stopped: {oracle.failure}") from oracle.failure
    return SearchResults.from_oracle(config, folder.path, oracle)


@contextlib.contextmanager
@checked
def without_deprecations() -> Iterator[None]:
    """Silence what KerasTuner cannot help: it calls functions of `threading` that were renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(currentThread|getName)\(\) is deprecated")
        yield


def _role() -> str:
    if "KERASTUNER_ORACLE_IP" not in os.environ:
        return "alone"
    return "chief" if "chief" in os.environ.get("KERASTUNER_TUNER_ID", "") else "worker"


def _work(tuner: RunTuner) -> None:
    """Run trials until there is none left.

    Raises:
        RunPausedError: If the process was asked to stop.
        SearchError: If the chief is lost.
    """
    try:
        tuner.search()
    except keras_tuner.errors.FatalError as error:
        if isinstance(error.__cause__, RunPausedError | SearchError):
            raise error.__cause__ from None
        raise


def _lead(tuner: RunTuner, oracle: GridOracle, config: SearchConfig) -> None:
    """Serve the workers until all trials are done, and don't wait for those that died."""
    served = threading.Thread(target=tuner.search, daemon=True)
    served.start()
    has_begun = False
    last_seen = time.monotonic()
    # KerasTuner's server looks for the end every 20 seconds only, and for dead workers never.
    while served.is_alive() and not oracle.is_finished():
        time.sleep(0.2)
        for worker in oracle.drop_silent(config.worker_timeout):
            print(f"Worker {worker} fell silent; its trial is run again.", file=sys.stderr)
        if oracle.last_contact:
            has_begun, last_seen = True, time.monotonic()
        elif has_begun and time.monotonic() - last_seen > config.worker_timeout:
            raise SearchError(
                "All workers fell silent before the search was over. Start workers and the chief "
                "again, with --resume, to continue it."
            )


def _wait_for_chief(folder: RunFolder, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not folder.is_claimed:
        if time.monotonic() > deadline:
            raise SearchError(
                f"No chief opened the search in {folder.path} within {timeout} s. "
                "Chief and workers must see the same folder."
            )
        time.sleep(0.2)
