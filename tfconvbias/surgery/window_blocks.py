"""Units of a dense layer grouped by the window of the image that they look at."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tfconvbias.analysis import best_windows

# In how many multiplications of a dense product a weight of the sparse product is counted.
_SPARSE_WEIGHT = 8
_WINDOWS = (3, 5, 9, 13, 17)
_STEPS = (2, 4, 8)
_ROOMS = (16, 64)


class WindowBlocks(NamedTuple):
    """Groups of units, as `BlockDense.from_kernel` takes them.

    Attributes:
        blocks: The units of each block.
        rows: The inputs that each block reads.
        window: Side of the windows; 0 for one block with all inputs that anybody reads.
        num_weights: Weights of all blocks, padded to equal sizes.
        num_rest: Non-zero weights outside the blocks.
    """

    blocks: list[np.ndarray]
    rows: list[np.ndarray]
    window: int
    num_weights: int
    num_rest: int

    @property
    def cost(self) -> int:
        """Multiplications for an example, with those of the sparse product weighed."""
        return self.num_weights + _SPARSE_WEIGHT * self.num_rest


def best_blocks(kernel, image_shape, allow_rest: bool) -> WindowBlocks | None:
    """The cheapest way to cut a kernel into blocks, by the number of multiplications.

    Args:
        kernel: Array `(inputs, units)`.
        image_shape: `(rows, cols, channels)` of the image that the inputs are; None if unknown,
            which leaves one block of the inputs that anybody reads.
        allow_rest: Whether weights may lie outside the blocks. Otherwise a block reads all inputs
            that one of its units has a weight for.

    Returns:
        The blocks, or None if there are none with fewer multiplications than the dense kernel has.
    """
    found = min(_all_blocks(kernel, image_shape, allow_rest), key=lambda blocks: blocks.cost)
    return found if found.cost < kernel.size else None


def _all_blocks(kernel, image_shape, allow_rest: bool) -> Iterator[WindowBlocks]:
    live = kernel != 0
    yield _blocks(live, [np.arange(kernel.shape[1])], [np.flatnonzero(live.any(axis=1))], 0)
    if image_shape is None:
        return
    for window in _WINDOWS:
        if window > min(image_shape[:2]):
            continue
        origins, _ = best_windows(kernel, image_shape, window)
        for step in _STEPS:
            for room in _ROOMS:
                yield _grouped(live, image_shape, origins, window, step, room, allow_rest)


def _grouped(live, image_shape, origins, window, step, room, allow_rest) -> WindowBlocks:
    """Units whose windows begin in the same field of `step` × `step` pixels, `room` at a time."""
    places = np.arange(live.shape[0]).reshape(image_shape)
    fields = origins // step
    order = np.lexsort(fields.T)
    borders = np.flatnonzero(np.diff(fields[order], axis=0).any(axis=1)) + 1
    blocks, rows = [], []
    for units in np.split(order, borders):
        top, left = fields[units[0]] * step
        reach = window + step - 1
        seen = places[top : top + reach, left : left + reach].reshape(-1)
        for begin in range(0, len(units), room):
            part = units[begin : begin + room]
            read = live[:, part].any(axis=1)
            blocks.append(part)
            rows.append(seen[read[seen]] if allow_rest else np.flatnonzero(read))
    return _blocks(live, blocks, rows, window)


def _blocks(live, blocks, rows, window) -> WindowBlocks:
    width = max(1, *(len(inputs) for inputs in rows))
    room = max(len(units) for units in blocks)
    held = sum(
        np.count_nonzero(live[np.ix_(inputs, units)])
        for units, inputs in zip(blocks, rows, strict=True)
    )
    num_rest = int(np.count_nonzero(live) - held)
    return WindowBlocks(blocks, rows, window, len(blocks) * width * room, num_rest)
