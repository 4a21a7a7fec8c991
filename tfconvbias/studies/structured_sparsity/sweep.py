"""A sweep over the strength of structured sparsity: base, path of α, thresholds, baselines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.lazy import analysis, callbacks, data, keras
from tfconvbias.studies.structured_sparsity.config import SparsityConfig
from tfconvbias.studies.structured_sparsity.result import SparsityResult, layer_rows, lost_layers
from tfconvbias.studies.structured_sparsity.steps import (
    NothingLeftError,
    build_network,
    momentum_sgd,
    multiply_adds,
    output_difference,
    penalized,
    random_layers,
    reduce,
    train,
)
from tfconvbias.training import Deadline, History, RunFolder, build_dataset, counted, environment
from tfconvbias.training.batches import check_batch_size


@checked
def run_sparsity(
    config: SparsityConfig,
    dataset: data.ImageDataset | None = None,
    deadline: Deadline | None = None,
) -> SparsityResult:
    """Run a sweep, or what is left of it.

    The base trains without a penalty. Along the path each α trains on from the α before (or from
    the base), and for each τ its network is thresholded, made compact and fine-tuned. Baselines
    train from scratch, as long as the last network of the path has in all. Every training keeps a
    checkpoint and every finished network its row, so that a killed sweep loses `checkpoint_every`
    epochs at most.

    Args:
        config: What to run, and where to keep it.
        dataset: The configured data set, where the caller has loaded it already.
        deadline: When to stop; by default `config.max_minutes` from now on.

    Raises:
        CompactionError: If a compact network computes something else than the thresholded one.
        ConfigError: If the data set is too small, or the augmentation is unknown.
        RunFolderError: If the folder holds another sweep, or this one without `config.resume`, or
            another process is at work in it.
        RunPausedError: If the time was over before the last training.
        TrainingDivergedError: If a loss became NaN or infinite.
        data.DatasetUnavailableError: If a named data set is not available.
    """
    deadline = deadline or config.deadline()
    if dataset is None:
        dataset = build_dataset(config)
    folder = RunFolder(config.run_dir)
    is_claimed = folder.check(config, config.resume, dataset, "sweep")
    check_batch_size(config.batch_size, len(dataset.x_train))
    network = build_network(config, dataset)
    with folder.locked():
        if not is_claimed:
            folder.claim(config, dataset)
            folder.write_environment(environment())
        sweep = _Sweep(config, dataset, folder, deadline, network)
        sweep.train_base()
        sweep.follow_path()
        sweep.train_baselines()
    return SparsityResult(config, sweep.rows, sweep.histories, folder)


class _Sweep:
    """The trainings of a sweep and what they leave behind."""

    def __init__(
        self,
        config: SparsityConfig,
        dataset: data.ImageDataset,
        folder: RunFolder,
        deadline: Deadline,
        base: keras.Model,
    ):
        self.config = config
        self.dataset = dataset
        self.folder = folder
        self.deadline = deadline
        self.base = base
        self.rows: list[dict[str, Any]] = []
        self.histories: dict[str, History] = {}
        order = np.random.default_rng(config.seed).permutation(len(dataset.x_test))
        # Repeated where there are fewer test images than the timed batch has.
        self.timed = dataset.x_test[np.resize(order, config.latency_batch)]

    def train_base(self) -> None:
        optimizer = self._sgd(self.config.learning_rate, self.config.epochs)
        self._fit("base", self.base, self.config.epochs, optimizer, self._watchers())
        if not self._read("base"):
            self._keep("base", "base", self.base, {"architecture": layer_rows(self.base)})

    def follow_path(self) -> None:
        config = self.config
        network = self.base
        for alpha in config.alphas:
            name = f"alpha-{alpha:g}"
            started = build_network(config, self.dataset)
            started.set_weights((network if config.warm_start else self.base).get_weights())
            trained, optimizer = penalized(config, self.dataset, started, alpha)
            self._fit(name, trained, config.sparse_epochs, optimizer, self._watchers())
            network = started
            is_left = False
            for tau in config.taus:
                if not self._reduce(name, network, alpha, tau):
                    break  # A larger τ leaves nothing either.
                is_left = True
            if not is_left:
                config.tell(f"{name} leaves no kernel: the path ends here.")
                break

    def _reduce(self, name: str, network: keras.Model, alpha: float, tau: float) -> bool:
        """Threshold, compact and fine-tune; whether anything was left."""
        config = self.config
        place = f"{name}/tau-{tau:g}"
        if self._read(place):
            return True
        try:
            reduced = reduce(config, network, tau)
        except NothingLeftError as error:
            config.tell(f"{place}: {error}")
            return False
        for message in reduced.messages:
            config.tell(f"{place}: {message}")
        difference = output_difference(place, reduced, self.timed)
        optimizer = self._sgd(config.fine_tune_learning_rate, config.fine_tune_epochs)
        history = self._fit(place, reduced.compact, config.fine_tune_epochs, optimizer)
        details = {
            "alpha": alpha,
            "tau": tau,
            "test_accuracy_penalized": self.histories[name]["test_accuracy"][-1],
            "test_accuracy_thresholded": history["test_accuracy"][0],
            "difference": difference,
            "kernel_correlation": _mean(analysis.kernel_correlation(network).values()),
            **lost_layers(reduced),
        }
        self._keep(place, "found", reduced.compact, details)
        return True

    def train_baselines(self) -> None:
        config = self.config
        for factor in config.uniform_widths:
            layers = [(max(1, round(factor * width)), size) for width, size in config.layers]
            self._baseline(f"uniform-{factor:g}", "uniform", layers, {"factor": factor})
        found = sorted(row["multiply_adds"] for row in self.rows if row["kind"] == "found")
        if not found:
            return
        places = np.linspace(0, len(found) - 1, config.random_widths).round().astype(int)
        for number, place in enumerate(places):
            rng = np.random.default_rng((config.seed, number))
            layers = random_layers(config, self.dataset, found[place], rng)
            self._baseline(f"random-{number + 1}", "random", layers, {})

    def _baseline(
        self, name: str, kind: str, layers: Sequence[tuple[int, int]], extra: Mapping[str, Any]
    ) -> None:
        if self._read(name):
            return
        network = build_network(self.config, self.dataset, layers)
        epochs = self.config.total_epochs
        self._fit(name, network, epochs, self._sgd(self.config.learning_rate, epochs))
        self._keep(name, kind, network, {"architecture": layer_rows(network), **extra})

    def _fit(
        self,
        name: str,
        model: keras.Model,
        epochs: int,
        optimizer: keras.optimizers.Optimizer,
        watchers: Sequence[keras.callbacks.Callback] = (),
    ) -> History:
        self.config.tell(f"[{name}] {counted(epochs, 'epoch')}")
        self.histories[name] = train(
            self.config,
            self.dataset,
            self.folder.part(name),
            model,
            epochs,
            optimizer,
            self.deadline,
            measured_on="test",
            watchers=watchers,
        )
        return self.histories[name]

    def _sgd(self, rate: float, epochs: int) -> keras.optimizers.SGD:
        return momentum_sgd(self.config, self.dataset, rate, epochs)

    def _watchers(self) -> list[keras.callbacks.Callback]:
        config = self.config
        live = callbacks.LiveKernels(config.group_penalty, min(config.taus), config.relative)
        return [live, callbacks.KernelCorrelation()]

    def _keep(self, name: str, kind: str, network: keras.Model, details: Mapping[str, Any]) -> None:
        """Measure a trained network and write its row."""
        place = self.folder.part(name)
        history = self.histories[name]
        times = analysis.inference_times({"base": self.base, "this": network}, self.timed)
        cost = multiply_adds(network)
        base_cost = self.rows[0]["multiply_adds"] if self.rows else cost
        row = {
            "name": name,
            "kind": kind,
            "alpha": None,
            "tau": None,
            "test_accuracy": history["test_accuracy"][-1],
            "train_accuracy": history["accuracy"][-1],
            "parameters": network.count_params(),
            "multiply_adds": cost,
            "multiply_adds_ratio": cost / base_cost,
            "latency": float(np.median(times["this"])),
            "latency_ratio": (
                1.0 if kind == "base" else analysis.time_ratio(times["this"], times["base"])
            ),
            "dataset": self.dataset.name,
            "num_train": len(self.dataset.x_train),
            "num_test": len(self.dataset.x_test),
            **details,
        }
        place.save_model(network, place.last_model)
        place.write_environment(environment())
        place.write_result(row)
        self.rows.append(row)
        if kind != "base":
            # The base's is what the path starts from, and each α's what the next α goes on from;
            # those of finished networks are of no more use.
            place.drop_checkpoints()

    def _read(self, name: str) -> bool:
        """Take over the row of a network that was finished before."""
        place = self.folder.part(name)
        row = place.result()
        if row is None:
            return False
        self.rows.append(row)
        self.histories[name] = place.history()
        return True


def _mean(values: Iterable[float]) -> float | None:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else None
