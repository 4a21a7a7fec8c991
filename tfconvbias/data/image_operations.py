"""The operations of augmentation policies on batches of images, one table row per image."""

from typing import Any

import numpy as np
from keras import ops

from tfconvbias.data.operation_tables import (
    AUTO_CONTRAST,
    COLOR,
    CONTRAST,
    CUTOUT,
    EQUALIZE,
    SHARPNESS,
    OperationTables,
    auto_contrast_corrections,
)

_CHANNELS = 3
_CUTOUT_COLOR = (125, 123, 114)


def apply_operations(images: Any, tables: OperationTables, rows: Any, centers: Any) -> Any:
    """Apply to each image the operation of its row.

    There are no branches within a batch: an operation that is in any row of the tables runs on all
    images, and leaves those unchanged whose row does not name it.

    Args:
        images: `(batch, height, width, 3)` int32, values 0…255.
        tables: The operations of the rows.
        rows: `(batch,)` int32, the row of each image.
        centers: `(batch, 2)` float32, Cutout's centre as fractions of width and height.

    Returns:
        `(batch, height, width, 3)` int32.
    """
    kind = ops.take(_constant(tables.kind), rows)
    if tables.moves:
        images = _move(images, ops.take(_constant(tables.affine), rows, axis=0))
    if tables.looks_up:
        images = _look_up(images, tables, rows, kind)
    if tables.kinds & {COLOR, SHARPNESS}:
        images = _blend(images, tables, rows, kind)
    if CUTOUT in tables.kinds:
        images = _cut_out(images, ops.take(_constant(tables.side), rows), centers)
    return images


def _move(images: Any, affine: Any) -> Any:
    """Nearest-neighbour sampling at `(a x + b y + c, d x + e y + f)`, black outside."""
    batch, height, width = _size(images)
    x = _constant(np.tile(np.arange(width, dtype="int32"), height))
    y = _constant(np.repeat(np.arange(height, dtype="int32"), width))
    a, b, c, d, e, f = ops.split(affine, 6, axis=1)
    column = ops.right_shift(a * x + b * y + c, 16)
    row = ops.right_shift(d * x + e * y + f, 16)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    first = ops.expand_dims(ops.arange(batch, dtype="int32") * (height * width), 1)
    index = ops.where(inside, first + row * width + column, 0)
    # A pixel is one number: a third of the reads.
    red, green, blue = (images[..., channel] for channel in range(_CHANNELS))
    packed = ops.reshape(red + green * 256 + blue * 65536, (-1,))
    moved = ops.where(inside, ops.take(packed, index), 0)
    channels = [moved & 255, ops.right_shift(moved, 8) & 255, ops.right_shift(moved, 16)]
    return ops.reshape(ops.stack(channels, axis=-1), (batch, height, width, _CHANNELS))


def _look_up(images: Any, tables: OperationTables, rows: Any, kind: Any) -> Any:
    """Replace each value by its entry in a table of 256 values per image and channel."""
    batch, height, width = _size(images)
    num_tables = batch * _CHANNELS
    pixels = ops.reshape(images, (batch, height * width, _CHANNELS))
    channel = ops.reshape(ops.arange(num_tables, dtype="int32") * 256, (batch, 1, _CHANNELS))
    index = pixels + channel
    lookup = ops.take(_constant(tables.lookups), ops.take(_constant(tables.lookup), rows), axis=0)
    kind = ops.reshape(kind, (batch, 1, 1))
    lookup = ops.broadcast_to(ops.expand_dims(lookup, 1), (batch, _CHANNELS, 256))
    if CONTRAST in tables.kinds:
        factor = ops.take(_constant(tables.factor), rows)
        lookup = ops.where(kind == CONTRAST, _contrast(pixels, factor), lookup)
    if tables.kinds & {AUTO_CONTRAST, EQUALIZE}:
        highest = ops.max(pixels, axis=1)
        if AUTO_CONTRAST in tables.kinds:
            stretched = _auto_contrast(ops.min(pixels, axis=1), highest)
            lookup = ops.where(kind == AUTO_CONTRAST, stretched, lookup)
        if EQUALIZE in tables.kinds:
            flat = ops.reshape(index, (-1,))
            counts = ops.segment_sum(ops.ones_like(flat), flat, num_segments=num_tables * 256)
            equalized = _equalize(ops.reshape(counts, (batch, _CHANNELS, 256)), highest)
            lookup = ops.where(kind == EQUALIZE, equalized, lookup)
    replaced = ops.take(ops.reshape(lookup, (-1,)), index)
    return ops.reshape(replaced, (batch, height, width, _CHANNELS))


def _contrast(pixels: Any, factor: Any) -> Any:
    """Blend with the mean grey level, rounded."""
    num_pixels = pixels.shape[1]
    total = ops.sum(_gray(pixels), axis=1)
    mean = ops.floor_divide(2 * total + num_pixels, 2 * num_pixels)
    levels = ops.arange(256, dtype="int32")
    blended = _mix(ops.expand_dims(mean, 1), levels, ops.expand_dims(factor, 1))
    return ops.expand_dims(blended, 1)


def _auto_contrast(lowest: Any, highest: Any) -> Any:
    """Stretch the values of a channel to 0…255; a channel of one value stays."""
    levels = ops.arange(256, dtype="int32")
    lowest, highest = ops.expand_dims(lowest, -1), ops.expand_dims(highest, -1)
    span = highest - lowest
    stretched = ops.floor_divide(255 * (levels - lowest), ops.maximum(span, 1))
    pointers, patterns = auto_contrast_corrections()
    found = ops.take(_constant(pointers), ops.squeeze(lowest * 256 + highest, -1))
    words = ops.expand_dims(ops.take(_constant(patterns), found, axis=0), -1)
    bits = ops.right_shift(words, ops.arange(32, dtype="int32")) & 1
    stretched = stretched - ops.reshape(bits, (-1, _CHANNELS, 256))
    return ops.where(span > 0, ops.clip(stretched, 0, 255), levels)


def _equalize(counts: Any, highest: Any) -> Any:
    """Spread the values so that each level is as full as the next, as far as they allow."""
    before = ops.cumsum(counts, axis=-1) - counts
    total = ops.sum(counts, axis=-1, keepdims=True)
    levels = ops.arange(256, dtype="int32")
    highest = ops.expand_dims(highest, -1)
    last = ops.sum(ops.where(levels == highest, counts, 0), axis=-1, keepdims=True)
    step = ops.floor_divide(total - last, 255)
    spread = ops.floor_divide(ops.floor_divide(step, 2) + before, ops.maximum(step, 1))
    return ops.where(step > 0, ops.minimum(spread, 255), levels)


def _blend(images: Any, tables: OperationTables, rows: Any, kind: Any) -> Any:
    """Blend with the image in grey, or with the image smoothed."""
    gray = ops.expand_dims(_gray(images), -1)
    if SHARPNESS not in tables.kinds:
        degenerate = gray
    elif COLOR not in tables.kinds:
        degenerate = _smooth(images)
    else:
        is_color = ops.reshape(kind == COLOR, (-1, 1, 1, 1))
        degenerate = ops.where(is_color, gray, _smooth(images))
    blends = (kind == COLOR) | (kind == SHARPNESS)
    factor = ops.where(blends, ops.take(_constant(tables.factor), rows), 1.0)
    return _mix(degenerate, images, ops.reshape(factor, (-1, 1, 1, 1)))


def _smooth(images: Any) -> Any:
    """Mean of a pixel, five times, and its eight neighbours; the border stays as it is."""
    _, height, width = _size(images)
    if height < 3 or width < 3:
        return images
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * images[:, 1:-1, 1:-1]
    inner = ops.pad(ops.floor_divide(2 * total + 13, 26), ((0, 0), (1, 1), (1, 1), (0, 0)))
    border = np.ones((height, width, 1), bool)
    border[1:-1, 1:-1] = False
    return ops.where(_constant(border), images, inner)


def _mix(degenerate: Any, images: Any, factor: Any) -> Any:
    """`degenerate + factor (images − degenerate)`, clipped and cut off; exact for a factor of 1."""
    difference = ops.cast(images - degenerate, "float32")
    mixed = ops.cast(degenerate, "float32") + factor * difference
    return ops.cast(ops.clip(mixed, 0.0, 255.0), "int32")


def _gray(images: Any) -> Any:
    red, green, blue = (images[..., channel] for channel in range(_CHANNELS))
    return ops.right_shift(red * 19595 + green * 38470 + blue * 7471 + 32768, 16)


def _cut_out(images: Any, side: Any, centers: Any) -> Any:
    """Fill a square, both ends included, whose corner is cut off at the image's edge."""
    _, height, width = _size(images)
    covered = side[:, None, None] > 0
    for axis, size in ((0, width), (1, height)):
        center = centers[:, axis] * size
        start = ops.cast(ops.maximum(center - side / 2, 0.0), "int32")
        end = start + ops.cast(side, "int32")
        places = ops.arange(size, dtype="int32")
        inside = (places >= start[:, None]) & (places <= end[:, None])
        covered = covered & ops.expand_dims(inside, 1 + axis)
    color = _constant(np.array(_CUTOUT_COLOR, "int32"))
    return ops.where(ops.expand_dims(covered, -1), color, images)


def _size(images: Any) -> tuple[Any, int, int]:
    return ops.shape(images)[0], images.shape[1], images.shape[2]


def _constant(array: Any) -> Any:
    return ops.convert_to_tensor(array)
