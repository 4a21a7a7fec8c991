"""The data set of a loss, as batches whose losses add up to that of all samples."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from tfconvbias.arguments import PositiveInt, check

DEFAULT_BATCH_SIZE = 256


class Batch(NamedTuple):
    """One batch as tensors, with its share in the sum over all batches.

    Attributes:
        x: Inputs, in the model's structure.
        y: Targets, in the structure of the model's outputs.
        weights: Sample weights: `None`, one tensor, or one tensor for each output.
        share: The batch's share of all samples.
        weight_shares: Its share of all sample weights, in the structure of `weights`.
    """

    x: Any
    y: Any
    weights: Any
    share: Any
    weight_shares: Any


class LossBatches:
    """Arrays in batches, or a data set that is already batched.

    A data set is a `tf.data.Dataset`, a `keras.utils.PyDataset` or another object that can be
    iterated again and again over `(x, y)` or `(x, y, sample_weight)`, such as PyTorch's
    `DataLoader`. It must yield the same samples at each pass, in whatever order. One pass at the
    start counts them.

    Args:
        x: An array, a list or dictionary of arrays, or a data set.
        y: Targets; `None` for a data set.
        sample_weight: Optional weights, `(N,)`, or one such array for each output; `None` for a
            data set.
        batch_size: Samples per batch of arrays; `None` for a data set.
        dtype: Dtype of the shares.

    Raises:
        ValueError: For arrays of unequal lengths, or a data set that cannot be used.
    """

    def __init__(self, x: Any, y: Any, sample_weight: Any, batch_size: int | None, dtype: str):
        self._dtype = dtype
        self._arrays: tuple | None = None
        self._kept: list[Batch] | None = None
        if _is_data_set(x):
            given = {"y": y, "sample_weight": sample_weight, "batch_size": batch_size}
            for name, value in given.items():
                if value is not None:
                    raise ValueError(
                        f"`{name}` must be left out when `x` is a data set. "
                        f"Received: {name}={value!r}"
                    )
            self._data_set = x
        else:
            self._arrays = _checked_arrays(x, y, sample_weight)
            check("batch_size", batch_size, PositiveInt | None)
            self._batch_size = DEFAULT_BATCH_SIZE if batch_size is None else batch_size
        self.num_samples, self._totals, self.num_batches = self._count()

    def __iter__(self) -> Iterator[Batch]:
        """The batches; a single one stays in memory."""
        if self._kept is not None:
            yield from self._kept
            return
        for parts in self._parts():
            batch = self._batch(parts)
            if self.num_batches == 1:
                self._kept = [batch]
            yield batch

    def rows(self, rows: np.ndarray) -> Batch:
        """Some samples of arrays as one batch, with its shares."""
        return self._batch(self._slice(rows))

    def _parts(self) -> Iterator[tuple]:
        """`(x, y, weights)` of each batch."""
        if self._arrays is not None:
            num = len(keras.tree.flatten(self._arrays)[0])
            for begin in range(0, num, self._batch_size):
                end = min(begin + self._batch_size, num)
                yield self._slice(slice(begin, end))
            return
        source = self._data_set
        if isinstance(source, keras.utils.PyDataset):
            source = (self._data_set[index] for index in range(self._data_set.num_batches))
        for element in source:
            if not isinstance(element, tuple | list) or len(element) not in (2, 3):
                raise ValueError(
                    "A data set must yield (x, y) or (x, y, sample_weight). "
                    f"Received: {type(element).__name__}"
                )
            x, y, *weights = element
            yield x, y, weights[0] if weights else None

    def _slice(self, rows: slice | np.ndarray) -> tuple:
        if self._arrays is None:
            raise ValueError("`rows` needs arrays; a data set is read from its beginning.")
        return keras.tree.map_structure(
            lambda array: None if array is None else array[rows], self._arrays
        )

    def _batch(self, parts: tuple) -> Batch:
        x, y, weights = parts
        shares = None
        if weights is not None:
            totals = [
                _as_array(w).sum() / t if t else 0.0
                for w, t in zip(keras.tree.flatten(weights), self._totals, strict=True)
            ]
            shares = keras.tree.pack_sequence_as(weights, [self._scalar(t) for t in totals])
        x, y, tensors = keras.tree.map_structure(_as_tensor, (x, y, weights))
        return Batch(x, y, tensors, self._scalar(_length(parts) / self.num_samples), shares)

    def _scalar(self, value: float) -> Any:
        return ops.convert_to_tensor(float(value), self._dtype)

    def _count(self) -> tuple[int, list[float], int]:
        """Samples, the sum of each array of weights, and batches."""
        num_samples, num_batches = 0, 0
        totals: list[float] = []
        for parts in self._parts():
            weights = [] if parts[2] is None else keras.tree.flatten(parts[2])
            sums = [float(_as_array(weight).sum()) for weight in weights]
            totals = [a + b for a, b in zip(totals, sums, strict=True)] if num_batches else sums
            num_samples += _length(parts)
            num_batches += 1
        if num_samples == 0:
            raise ValueError("There must be one sample at least. Received: no sample")
        return num_samples, totals, num_batches


def _is_data_set(x: Any) -> bool:
    if isinstance(x, keras.utils.PyDataset):
        if x.num_batches is None:
            raise ValueError("A PyDataset must have an end. Received: num_batches=None")
        return True
    if isinstance(x, np.ndarray | list | tuple | dict) or hasattr(x, "shape"):
        return False
    if hasattr(x, "__next__"):
        raise ValueError(
            "`x` must be arrays, or a data set that can be read again and again. "
            f"Received: an iterator, {x!r}"
        )
    if not hasattr(x, "__iter__") or isinstance(x, str):
        raise ValueError(f"`x` must be arrays or a data set. Received: x={x!r}")
    if hasattr(x, "cardinality") and int(x.cardinality()) == -1:
        raise ValueError(f"A data set must have an end. Received: x={x!r}")
    return True


def _checked_arrays(x: Any, y: Any, sample_weight: Any) -> tuple:
    if y is None:
        raise ValueError("`y` must hold the targets when `x` is not a data set. Received: y=None")
    arrays = keras.tree.map_structure(_as_array, (x, y, sample_weight))
    shapes = [array.shape for array in keras.tree.flatten(arrays) if array is not None]
    lengths = sorted({shape[0] if shape else 1 for shape in shapes})
    if len(lengths) != 1 or lengths[0] == 0:
        raise ValueError(
            "`x`, `y` and `sample_weight` must hold equally many samples, at least one. "
            f"Received: lengths {lengths}"
        )
    return arrays


def _length(parts: tuple) -> int:
    return int(keras.tree.flatten(parts)[0].shape[0])


def _as_array(value: Any) -> Any:
    if value is None or isinstance(value, np.ndarray):
        return value
    return ops.convert_to_numpy(value) if ops.is_tensor(value) else np.asarray(value)


def _as_tensor(value: Any) -> Any:
    if value is None or ops.is_tensor(value):
        return value
    return ops.convert_to_tensor(_as_array(value))
