"""A sweep over the strength of structured sparsity: base, path of α, thresholds, baselines."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tfconvbias.training.checkpointed_fit import read_history
from tfconvbias.training.claimed_folder import check_folder, write_json
from tfconvbias.training.sparsity_config import SparsityConfig
from tfconvbias.training.sparsity_steps import (
    build_network,
    momentum_sgd,
    multiply_adds,
    penalized,
    random_layers,
    reduce,
    train,
)

from tfconvbias import analysis, callbacks, data, surgery
from tfconvbias.training.batches import check_batch_size
from tfconvbias.training.build import load_dataset
from tfconvbias.training.environment import environment
from tfconvbias.training.run_folder import History

_EVALUATION_BATCH = 500
_TOLERANCE = 1e-5
_LAYER_FIELDS = (
    "name kind kernels live_kernels kept_kernels kernel_size kept_kernel_size sizes multiply_adds"
)


@dataclasses.dataclass(frozen=True)
class SparsityResult:
    """A finished sweep, as it is read from its folder.

    Attributes:
        config: What was run.
        rows: The networks, the base first: `kind` is `"base"`, `"found"`, `"uniform"` or
            `"random"`.
        histories: Name of a training → its columns, epoch by epoch.
        folder: The run folder.
    """

    config: SparsityConfig
    rows: list[dict[str, Any]]
    histories: dict[str, History]
    folder: Path

    @property
    def base(self) -> dict[str, Any]:
        """The base's row."""
        return self.rows[0]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Rows of a kind, in the order in which they were run."""
        return [row for row in self.rows if row["kind"] == kind]


def run_sparsity(
    config: SparsityConfig, dataset: data.ImageDataset | None = None
) -> SparsityResult:
    """Run a sweep, or what is left of it.

    The base trains without a penalty. Along the path each α trains on from the α before (or from
    the base), and for each τ its network is thresholded, made compact and fine-tuned. Baselines
    train from scratch, as long as the last network of the path has in all. Every training keeps a
    checkpoint and every finished network its row, so that a killed sweep loses `checkpoint_every`
    epochs at most.

    Args:
        config: What to run, and where to keep it.
        dataset: The data set, where the caller has loaded it already.

    Raises:
        RunFolderError: If the folder holds another sweep, or this one without `config.resume`.
        TrainingDivergedError: If a loss became NaN or infinite.
        ConfigError: If the data set is not there or too small, or the augmentation is unknown.
        data.DatasetUnavailableError: If a named data set can't be had.
    """
    folder = Path(config.run_dir)
    claimed = check_folder(folder / "config.json", config.identity(), config.resume, "sweep")
    if dataset is None:
        dataset = load_dataset(config.dataset, config.data_dir)
    dataset = dataset.limit(num_train=config.num_train, num_test=config.num_test, seed=config.seed)
    check_batch_size(config.batch_size, len(dataset.x_train))
    network = build_network(config, dataset)
    if not claimed:
        write_json(folder / "config.json", config.identity())
    sweep = _Sweep(config, dataset, folder)
    sweep.train_base(network)
    sweep.follow_path()
    sweep.train_baselines()
    return SparsityResult(config, sweep.rows, sweep.histories, folder)


class _Sweep:
    """The trainings of a sweep and what they leave behind."""

    def __init__(self, config: SparsityConfig, dataset: data.ImageDataset, folder: Path):
        self.config = config
        self.dataset = dataset
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self.histories: dict[str, History] = {}
        self.base: keras.Model = None
        order = np.random.default_rng(config.seed).permutation(len(dataset.x_test))
        # Repeated where there are fewer test images than the timed batch has.
        self.timed = dataset.x_test[np.resize(order, config.latency_batch)]

    def train_base(self, network: keras.Model) -> None:
        self.base = network
        optimizer = self._sgd(self.config.learning_rate, self.config.epochs)
        self._fit("base", network, self.config.epochs, optimizer, self._watchers())
        if not self._read("base"):
            self._keep("base", "base", network, {"architecture": _layers(network)})

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
            left = False
            for tau in config.taus:
                if not self._reduce(name, network, alpha, tau):
                    break  # a larger τ leaves no more
                left = True
            if not left:
                self._tell(f"{name} leaves no kernel: the path ends here.")
                break

    def _reduce(self, name: str, network: keras.Model, alpha: float, tau: float) -> bool:
        """Threshold, compact and fine-tune; whether anything was left."""
        config = self.config
        place = f"{name}/tau-{tau:g}"
        if self._read(place):
            return True
        try:
            reduced = reduce(config, network, tau)
        except ValueError as error:
            self._tell(f"{place}: {error}")
            return False
        for message in reduced.messages:
            self._tell(f"{place}: {message}")
        difference = _difference(reduced.thresholded, reduced.compact, self.timed)
        if difference > _TOLERANCE:
            raise AssertionError(
                f"{place}: the compact network's outputs differ by {difference:.2e}, relative to "
                f"the largest; {_TOLERANCE} is allowed."
            )
        correlation = analysis.kernel_correlation(network)
        optimizer = self._sgd(config.fine_tune_learning_rate, config.fine_tune_epochs)
        history = self._fit(place, reduced.compact, config.fine_tune_epochs, optimizer)
        before, after = reduced.report.before, reduced.report.after
        kept = {layer.name for layer in after.layers}
        self._keep(
            place,
            "found",
            reduced.compact,
            {
                "alpha": alpha,
                "tau": tau,
                "test_accuracy_penalized": self.histories[name]["test_accuracy"][-1],
                "test_accuracy_thresholded": history["test_accuracy"][0],
                "difference": difference,
                "theoretical_multiply_adds": before.total("theoretical_multiply_adds"),
                "architecture": [_layer(layer) for layer in before.layers],
                "vanished": [layer.name for layer in before.layers if layer.name not in kept],
                "identity_kernels": sum(surgery.identity_kernels(reduced.thresholded).values()),
                "kernel_correlation": _mean(correlation.values()),
                "messages": list(reduced.messages),
            },
        )
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
        self._keep(name, kind, network, {"architecture": _layers(network), **extra})

    def _fit(
        self,
        name: str,
        model: keras.Model,
        epochs: int,
        optimizer: keras.optimizers.Optimizer,
        extra: Sequence[keras.callbacks.Callback] = (),
    ) -> History:
        self._tell(f"[{name}] {epochs} epochs")
        self.histories[name] = train(
            self.config, self.dataset, self.folder / name, model, epochs, optimizer, extra
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
        place = self.folder / name
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
            "num_train": len(self.dataset.x_train),
            "num_test": len(self.dataset.x_test),
            "environment": environment(),
            **details,
        }
        unfinished = place / "unfinished-model.keras"
        network.save(unfinished)
        unfinished.replace(place / "model.keras")
        write_json(place / "result.json", row)
        self.rows.append(row)
        if kind != "base":
            # The base's is what the path is started from, and each α's what the next one goes on
            # from; those of networks that are done are of no more use.
            for file in place.glob("checkpoint-*"):
                file.unlink()

    def _read(self, name: str) -> bool:
        """Take over the row of a network that was finished before."""
        file = self.folder / name / "result.json"
        if not file.exists():
            return False
        self.rows.append(json.loads(file.read_text(encoding="utf-8")))
        self.histories[name] = read_history(self.folder / name / "history.csv")
        return True

    def _tell(self, text: str) -> None:
        if self.config.verbose != "silent":
            print(text, flush=True)


def _layers(network: keras.Model) -> list[dict[str, Any]]:
    return [_layer(layer) for layer in surgery.architecture(network).layers]


def _layer(layer: surgery.LayerArchitecture) -> dict[str, Any]:
    row = {name: getattr(layer, name) for name in _LAYER_FIELDS.split()}
    # JSON knows no numbers as keys.
    return row | {"sizes": {str(size): count for size, count in layer.sizes.items()}}


def _difference(one: keras.Model, other: keras.Model, images: np.ndarray) -> float:
    first, second = (
        m.predict(images, batch_size=_EVALUATION_BATCH, verbose=0) for m in (one, other)
    )
    return float(np.abs(first - second).max() / max(1.0, np.abs(first).max()))


def _mean(values: Iterable[float]) -> float | None:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else None
