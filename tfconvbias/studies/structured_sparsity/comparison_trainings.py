"""The trainings of a comparison with one seed: shared ones, and those of each method."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from tfconvbias.lazy import analysis, callbacks, data, keras, optimizers, surgery
from tfconvbias.studies.structured_sparsity.comparison_config import (
    FROM_SCRATCH,
    ComparisonConfig,
    Setting,
    pattern_of,
)
from tfconvbias.studies.structured_sparsity.steps import (
    build_network,
    cosine_decay,
    momentum_sgd,
    multiply_adds,
    penalized,
    random_layers,
    reduce,
    train,
)
from tfconvbias.training import Deadline, History, RunFolder, counted

_BISECTIONS = 12
_SMALLEST_NORM, _LARGEST_NORM = 1e-4, 1e2
_MEASURED_IMAGES = 500


class SeedTrainings:
    """The trainings with one seed; those that several methods share are made once.

    Args:
        config: The comparison.
        dataset: Its training and validation images are used, its test images never.
        folder: The comparison's folder.
        deadline: When to stop.
        seed: Seed of weights, batches, augmentation and random widths.
    """

    def __init__(
        self,
        config: ComparisonConfig,
        dataset: data.ImageDataset,
        folder: RunFolder,
        deadline: Deadline,
        seed: int,
    ):
        self.config = config
        self.sweep = config.sweep.replace(seed=seed)
        self.dataset = dataset
        self.folder = folder
        self.deadline = deadline
        self.seed = seed
        self.full_cost = multiply_adds(build_network(self.sweep, dataset, None, "zeros"))
        self._shared: dict[str, keras.Model] = {}

    def run(
        self, method: str, budget: float, setting: Setting, place: str
    ) -> tuple[keras.Model, History]:
        """Train one network to its end.

        Args:
            method: One of `METHODS`.
            budget: The share that is left.
            setting: What is tuned.
            place: Name of the last training's part of the folder.

        Raises:
            RunPausedError: If the time was over before the last epoch.
            TrainingDivergedError: If the loss became NaN or infinite.
        """
        rate = setting.learning_rate
        if method in FROM_SCRATCH:
            network = build_network(self.sweep, self.dataset, self._layers(method, budget))
            return network, self._fit(place, network, self.config.total_epochs, rate)
        network, watchers = self._at_budget(method, budget, setting.strength)
        epochs = self.sweep.fine_tune_epochs
        return network, self._fit(place, network, epochs, rate, watchers)

    def _layers(self, method: str, budget: float) -> Sequence[tuple[int, int]] | None:
        target = round(budget * self.full_cost)
        if method == "dense":
            return None
        if method == "random":
            rng = np.random.default_rng((self.seed, target))
            return random_layers(self.sweep, self.dataset, target, rng)
        return self._narrower(target)

    def _narrower(self, target: int) -> list[tuple[int, int]]:
        """The base with all widths times one factor, as near below the target as it gets.

        Widths are whole, so that all layers of one width would jump together: where the largest
        factor leaves room, the layers get one channel more, the last ones first.
        """
        low, high = 0.0, 1.0
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            if self._cost(self._times(middle)) <= target:
                low = middle
            else:
                high = middle
        layers = self._times(low)
        for index in reversed(range(len(layers))):
            width, size = layers[index]
            wider = [*layers[:index], (width + 1, size), *layers[index + 1 :]]
            if self._cost(wider) <= target:
                layers = wider
        return layers

    def _cost(self, layers: Sequence[tuple[int, int]]) -> int:
        return multiply_adds(build_network(self.sweep, self.dataset, layers, "zeros"))

    def _times(self, factor: float) -> list[tuple[int, int]]:
        return [(max(1, round(factor * width)), size) for width, size in self.sweep.layers]

    def _at_budget(
        self, method: str, budget: float, strength: float | None
    ) -> tuple[keras.Model, list[keras.callbacks.Callback]]:
        """What is left of the seed's base, and the callbacks that hold its zeros."""
        if method == "proximal":
            return self._thresholded(self._proximal(strength or 0.0), budget), []
        if method == "magnitude":
            return self._masked(method, budget)
        if method == "n_m":
            return self._masked(method, budget, pattern_of(budget))
        if method == "beta_lasso":
            network = self._copy(self._beta_lasso(strength or 0.0))
            _keep_largest(network, budget)
            return network, [self._frozen()]
        importance = method.removeprefix("prune_").removesuffix("_channels")
        shown = slice(_MEASURED_IMAGES)
        return surgery.prune(
            self._trained_on(),
            multiply_adds=budget,
            importance=importance,
            round_to=1,
            dataset=(self.dataset.x_train[shown], self.dataset.y_train[shown]),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            seed=self.seed,
        ).model, []

    def _base(self) -> keras.Model:
        def make() -> keras.Model:
            network = build_network(self.sweep, self.dataset)
            self._fit(self._name("base"), network, self.sweep.epochs, self.sweep.learning_rate)
            return network

        return self._once("base", make)

    def _trained_on(self) -> keras.Model:
        """The base after as many epochs as others have with their penalty or schedule."""

        def make() -> keras.Model:
            network = self._copy(self._base())
            self._fit_sparse("trained-on", network, self._sparse_sgd())
            return network

        return self._once("trained-on", make)

    def _proximal(self, alpha: float) -> keras.Model:
        def make() -> keras.Model:
            network = self._copy(self._base())
            trained, optimizer = penalized(self.sweep, self.dataset, network, alpha)
            self._fit_sparse(f"proximal-{alpha:g}", trained, optimizer)
            return network

        return self._once(f"proximal-{alpha:g}", make)

    def _beta_lasso(self, l1: float) -> keras.Model:
        def make() -> keras.Model:
            network = self._copy(self._base())
            rate, epochs = self.sweep.sparse_learning_rate, self.sweep.sparse_epochs
            schedule = cosine_decay(self.sweep, self.dataset, rate, epochs)
            optimizer = optimizers.BetaLasso(
                schedule, l1, self.config.beta, momentum=self.sweep.momentum
            )
            self._fit_sparse(f"beta-lasso-{l1:g}", network, optimizer)
            return network

        return self._once(f"beta-lasso-{l1:g}", make)

    def _masked(
        self, method: str, budget: float, pattern: tuple[int, int] | None = None
    ) -> tuple[keras.Model, list[keras.callbacks.Callback]]:
        """The base with ever more zeros by the cubic schedule, and what holds them."""
        steps = self.sweep.sparse_epochs * (len(self.dataset.x_train) // self.sweep.batch_size)
        # Zeros that come last have a fifth of the steps in which the others make up for them.
        end = max(1, round(0.8 * steps))
        schedule = callbacks.SparsitySchedule(1 - budget, 0, end, frequency=max(1, steps // 50))

        def pruner(schedule: callbacks.SparsitySchedule | float) -> callbacks.PruneDuringFit:
            kernels = None if pattern is None else _in_blocks_of(pattern[1])
            return callbacks.PruneDuringFit(schedule, kernels, pattern)

        def make() -> keras.Model:
            network = self._copy(self._base())
            optimizer = self._sparse_sgd()
            self._fit_sparse(f"{method}-{budget:g}", network, optimizer, [pruner(schedule)])
            return network

        network = self._copy(self._once(f"{method}-{budget:g}", make))
        return network, [pruner(1 - budget)]

    def _frozen(self) -> keras.callbacks.Callback:
        """Holds zeros; its audit of the last epoch is not used."""
        shown = slice(self.sweep.batch_size)
        x, y = self.dataset.x_train[shown], self.dataset.y_train[shown]
        epochs = self.sweep.fine_tune_epochs
        return callbacks.FreezeSupport(x, y, limit=math.inf, every=epochs, batch_size=len(x))

    def _thresholded(self, network: keras.Model, budget: float) -> keras.Model:
        """The compact network of the smallest τ, of a grid, whose multiply-adds the budget allows.

        Where even the largest leaves more, since each layer keeps a kernel, that one is taken.
        """
        target = budget * self.full_cost
        low, high = math.log(_SMALLEST_NORM), math.log(_LARGEST_NORM)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            if self._left(network, math.exp(middle)) <= target:
                high = middle
            else:
                low = middle
        return reduce(self.sweep, network, math.exp(high)).compact

    def _left(self, network: keras.Model, tau: float) -> float:
        sweep = self.sweep
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                zeroed = surgery.threshold(
                    network, tau, sweep.relative, sweep.group_penalty, sweep.fold_normalization
                )
            except ValueError:  # Nothing is left.
                return 0.0
            return surgery.architecture(zeroed).total("realised_multiply_adds")

    def _once(self, name: str, make: Callable[[], keras.Model]) -> keras.Model:
        if name not in self._shared:
            self._shared[name] = make()
        return self._shared[name]

    def _copy(self, network: keras.Model) -> keras.Model:
        copy = build_network(self.sweep, self.dataset)
        copy.set_weights(network.get_weights())
        return copy

    def _name(self, training: str) -> str:
        return f"shared/seed-{self.seed}/{training}"

    def _sparse_sgd(self) -> keras.optimizers.SGD:
        rate, epochs = self.sweep.sparse_learning_rate, self.sweep.sparse_epochs
        return momentum_sgd(self.sweep, self.dataset, rate, epochs)

    def _fit_sparse(
        self,
        name: str,
        network: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        watchers: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        epochs = self.sweep.sparse_epochs
        self._fit(self._name(name), network, epochs, optimizer, watchers)

    def _fit(
        self,
        place: str,
        network: keras.Model,
        epochs: int,
        optimizer: keras.optimizers.Optimizer | float,
        watchers: Sequence[keras.callbacks.Callback] = (),
    ) -> History:
        if isinstance(optimizer, float):
            optimizer = momentum_sgd(self.sweep, self.dataset, optimizer, epochs)
        self.sweep.tell(f"[{place}] {counted(epochs, 'epoch')}")
        return train(
            self.sweep,
            self.dataset,
            self.folder.part(place),
            network,
            epochs,
            optimizer,
            self.deadline,
            measured_on="validation",
            watchers=watchers,
        )


def _in_blocks_of(size: int) -> Callable[[keras.Variable], bool]:
    """Chooses the kernels whose input channels can be cut into blocks."""

    def chosen(variable: keras.Variable) -> bool:
        return optimizers.is_kernel(variable) and variable.shape[-2] % size == 0

    return chosen


def _keep_largest(network: keras.Model, share: float) -> None:
    """Zeroes all but the largest weights of all kernels together, in place."""
    kernels = list(analysis.kernels(network).values())
    values = [np.abs(keras.ops.convert_to_numpy(kernel)) for kernel in kernels]
    ranked = np.sort(np.concatenate([value.reshape(-1) for value in values]))
    limit = ranked[-max(1, round(share * len(ranked)))]
    for kernel, value in zip(kernels, values, strict=True):
        kernel.assign(np.where(value >= limit, keras.ops.convert_to_numpy(kernel), 0))
