"""Pruning while a model learns: single weights, N:M patterns, or whole channels."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.arguments import checked
from tfconvbias.callbacks.sparsity_schedule import SparsitySchedule
from tfconvbias.graph import facts_of, leaf_layers
from tfconvbias.optimizers import choose_penalized


@checked
class PruneDuringFit(keras.callbacks.Callback):
    r"""Zeroes the smallest weights while the model learns, ever more of them, and holds the zeros.

    At the updates of the schedule the smallest share of each kernel becomes zero, by absolute
    value; after every step whatever was zeroed is zeroed again. The mask is the zeros themselves:
    there are no wrappers to strip and no extra variables. So a saved model is a plain model, and a
    model that is loaded and trained on with this callback keeps its zeros; the schedule goes on
    where it was, since it counts the optimizer's iterations. (A kernel that is zero as a whole when
    `fit` begins, as one with a zero initializer, is not taken for pruned.)

    Three kinds of zeros:

    - single weights (the default), the smallest share of each kernel;
    - with `pattern=(n, m)`, in every m weights in a row along the input channels only the n
      largest are left in the end, which some accelerators compute faster (2:4);
    - with `groups`, whole channels: where a channel is read, its weights become zero, so that
      `surgery.compact` removes the channel from all layers that it is in.

    Put it before callbacks that save the model. With `steps_per_execution` above 1 zeros are held
    between executions, not inside them.

    Args:
        schedule: A `SparsitySchedule`; or the share of zeros, which is then reached at the first
            step.
        kernels: Which variables are pruned: a regular expression on their paths, or a function of
            the variable. Defaults to all kernels. Not with `groups`.
        pattern: `(n, m)`, with `schedule` ending at 1 − n/m. It is approached one weight of every m
            at a time.
        groups: `surgery.channel_groups(model)`, made of the model that is trained.
        importance: Function of a group that gives one score for each of its channels; the lowest
            become zero first. Defaults to the mean over the group's kernels of ‖W(c)‖².

    Raises:
        ValueError: If the arguments contradict each other, or a kernel does not fit the pattern.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="dense")])
        >>> model.compile("sgd", "mse")
        >>> schedule = SparsitySchedule(0.75, begin_step=0, end_step=2, frequency=1)
        >>> _ = model.fit(np.ones((12, 8)), np.ones((12, 4)), batch_size=4, verbose=0,
        ...     callbacks=[PruneDuringFit(schedule)])
        >>> int((ops.convert_to_numpy(model.get_layer("dense").kernel) == 0).sum())
        24

    Reference:
        Zhu and Gupta, "To Prune, or Not to Prune", 2017; Mishra et al., "Accelerating Sparse Deep
        Neural Networks", 2021, for 2:4.
    """

    def __init__(
        self,
        schedule: SparsitySchedule | float,
        kernels: str | Callable[[Any], bool] | None = None,
        pattern: tuple[int, int] | None = None,
        groups: Iterable[Any] | None = None,
        importance: Callable[[Any], Any] | None = None,
    ):
        super().__init__()
        if not callable(schedule):
            schedule = SparsitySchedule(schedule, begin_step=0, end_step=0)
        if groups is not None and (kernels is not None or pattern is not None):
            raise ValueError(
                "`groups` chooses what is pruned: `kernels` and `pattern` must not be given with "
                f"it. Received: kernels={kernels!r}, pattern={pattern}"
            )
        if pattern is not None:
            n, m = pattern
            if not 0 < n < m or abs(schedule.final_sparsity - (1 - n / m)) > 1e-6:
                raise ValueError(
                    "`pattern=(n, m)` needs 0 < n < m and a schedule that ends at 1 − n/m. "
                    f"Received: pattern={pattern}, final_sparsity={schedule.final_sparsity}"
                )
        self.schedule = schedule
        self.kernels = kernels
        self.pattern = pattern
        self.groups = groups
        self.importance = importance or _mean_square
        self._variables: list[Any] = []
        self._masks: list[Any] = []
        self._axes: dict[int, int] = {}
        self._last_update = -1

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Finds the kernels, and takes the zeros that they have for the mask."""
        model = self.model
        if self.groups is None:
            trainable = model.trainable_variables
            chosen = choose_penalized(trainable, self.kernels)
            self._variables = [v for v, one in zip(trainable, chosen, strict=True) if one]
        else:
            readers = {id(p.weight): p.weight for g in self._cuttable() for p in _readers(g)}
            self._variables = list(readers.values())
            own = {id(variable) for variable in model.variables}
            foreign = [v.path for v in self._variables if id(v) not in own]
            if foreign or not self._variables:
                raise ValueError(
                    "`groups` must be made of the model that is trained, by "
                    "`tfconvbias.surgery.channel_groups`, and have channels that may be cut. "
                    f"Received: variables of another model {foreign}"
                )
        if self.pattern is not None:
            self._axes = {id(v): axis for v, axis in _input_axes(model)}
            self._check_pattern(self.pattern[1])
        self._masks = []
        for variable in self._variables:
            live = ops.convert_to_numpy(variable) != 0
            self._masks.append(self._tensor(live if live.any() else np.ones_like(live), variable))
        self._last_update = -1

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Updates the masks when that is due, and applies them."""
        # The attribute `model` brings JAX's variables up to date.
        step = int(ops.convert_to_numpy(self.model.optimizer.iterations))
        if self.schedule.is_due(step, self._last_update):
            self._update(self.schedule(step))
            self._last_update = step
        self._apply()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds `sparsity`, the share of zeros among the kernels, to the logs."""
        if logs is not None:
            zeros = sum(float(ops.convert_to_numpy(ops.sum(1 - mask))) for mask in self._masks)
            logs["sparsity"] = zeros / sum(int(np.prod(mask.shape)) for mask in self._masks)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Applies the masks to the moving averages that an optimizer writes into the model."""
        self._apply()

    def _apply(self) -> None:
        for variable, mask in zip(self._variables, self._masks, strict=True):
            variable.assign(ops.multiply(variable, mask))

    def _update(self, sparsity: float) -> None:
        if self.groups is not None:
            self._cut_channels(sparsity)
            return
        for index, variable in enumerate(self._variables):
            weights = np.abs(ops.convert_to_numpy(ops.multiply(variable, self._masks[index])))
            if self.pattern is None:
                live = _all_but_smallest(weights.reshape(1, -1), sparsity).reshape(weights.shape)
            else:
                axis = self._axes.get(id(variable), -2)
                live = self._in_blocks(weights, axis, self.pattern[1], sparsity)
            self._masks[index] = self._tensor(live, variable)

    @staticmethod
    def _in_blocks(weights: np.ndarray, axis: int, m: int, sparsity: float) -> np.ndarray:
        """The pattern along one axis."""
        moved = np.moveaxis(weights, axis, -1)
        blocks = moved.reshape(-1, m)
        live = _all_but_smallest(blocks, sparsity).reshape(moved.shape)
        return np.moveaxis(live, -1, axis)

    def _check_pattern(self, m: int) -> None:
        for variable in self._variables:
            axis = self._axes.get(id(variable), -2)
            if len(variable.shape) < 2 or variable.shape[axis] % m:
                raise ValueError(
                    f"`pattern` cuts the input channels into blocks of {m}, which those of "
                    f"{variable.path!r} of the shape {tuple(variable.shape)} are no multiple of. "
                    "Choose others with `kernels`."
                )

    def _cuttable(self) -> list[Any]:
        return [group for group in self.groups or () if not group.kept_because]

    def _cut_channels(self, sparsity: float) -> None:
        masks = {id(v): index for index, v in enumerate(self._variables)}
        live = [ops.convert_to_numpy(mask).copy() for mask in self._masks]
        for group in self._cuttable():
            dead = np.ones(group.channels, bool)
            for part in _readers(group):
                dead &= ~part.rows(live[masks[id(part.weight)]]).any(axis=1)
            scores = np.where(dead, -np.inf, np.asarray(self.importance(group), "float64"))
            # One channel at least is left.
            count = min(round(sparsity * group.channels), group.channels - 1)
            gone = np.argsort(scores, kind="stable")[: max(count, int(dead.sum()))]
            for part in _readers(group):
                rows = np.moveaxis(live[masks[id(part.weight)]], part.axis, 0)
                rows[part.positions[gone].reshape(-1)] = 0
        for index, (mask, variable) in enumerate(zip(live, self._variables, strict=True)):
            self._masks[index] = self._tensor(mask, variable)

    @staticmethod
    def _tensor(mask: np.ndarray, variable: Any) -> Any:
        return ops.convert_to_tensor(mask.astype("float32"), dtype=variable.dtype)


def _all_but_smallest(rows: np.ndarray, sparsity: float) -> np.ndarray:
    """Which entries stay when the smallest of each row go: their share, rounded down."""
    count = int(sparsity * rows.shape[1] + 1e-6)
    live = np.ones(rows.shape, bool)
    if count:
        smallest = np.argpartition(rows, count - 1, axis=1)[:, :count]
        np.put_along_axis(live, smallest, False, axis=1)
    return live


def _readers(group: Any) -> list[Any]:
    return group.with_roles("reads")


def _mean_square(group: Any) -> np.ndarray:
    parts = group.with_roles("reads", "writes", "filters")
    return np.mean([part.squares() for part in parts], axis=0)


def _input_axes(model: keras.Model) -> Iterator[tuple[Any, int]]:
    """The kernels of known layers with the axis of their input channels."""
    for layer in leaf_layers(model):
        facts = facts_of(layer)
        for kernel in facts.kernels if facts is not None else ():
            yield getattr(layer, kernel.attribute), kernel.input_axis
