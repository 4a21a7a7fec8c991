"""Augmentation operations as rows of tables, computed ahead in Pillow's own arithmetic."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

from tfconvbias.data.augmentation_policy import OPERATIONS, magnitude

EVERY_KIND = frozenset(range(7))
NOTHING, CONTRAST, AUTO_CONTRAST, EQUALIZE, COLOR, SHARPNESS, CUTOUT = sorted(EVERY_KIND)
_KINDS = {
    "Contrast": CONTRAST,
    "AutoContrast": AUTO_CONTRAST,
    "Equalize": EQUALIZE,
    "Color": COLOR,
    "Sharpness": SHARPNESS,
    "Cutout": CUTOUT,
}
_GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
_FIXED = 1 << 16
_STAY = (_FIXED, 0, _FIXED // 2, 0, _FIXED, _FIXED // 2)
_LEVELS = np.arange(256)


@dataclasses.dataclass(frozen=True)
class OperationTables:
    """What each row does to an image: an operation, its magnitude and its sign.

    Attributes:
        affine: `(rows, 6)` int32, the map from output to input pixels in 16.16 fixed point.
        lookup: `(rows,)` int32, row of `lookups`.
        lookups: `(tables, 256)` int32, new value of each value; the first is the identity.
        kind: `(rows,)` int32, which operation it is, if it depends on the image or a random place.
        factor: `(rows,)` float32, weight of the image in a blend with its degenerate form (grey or
            smoothed); 1 for other operations.
        side: `(rows,)` float32, side of Cutout's square in pixels; 0 for other operations.
    """

    affine: np.ndarray
    lookup: np.ndarray
    lookups: np.ndarray
    kind: np.ndarray
    factor: np.ndarray
    side: np.ndarray

    @property
    def moves(self) -> bool:
        """Whether any row moves pixels."""
        return bool((self.affine != _STAY).any())

    @property
    def kinds(self) -> frozenset[int]:
        """The kinds that occur."""
        return frozenset(self.kind.tolist())

    @property
    def looks_up(self) -> bool:
        """Whether any row replaces values by the entries of a table."""
        return len(self.lookups) > 1 or bool(self.kinds & {CONTRAST, AUTO_CONTRAST, EQUALIZE})


def operation_tables(
    steps: Sequence[tuple[str, float] | None], height: int, width: int
) -> OperationTables:
    """Tables with two rows per step: `2 i` with the magnitude as given, `2 i + 1` mirrored.

    Args:
        steps: Pairs of operation and level; `None` leaves an image unchanged.
        height: Rows of the images.
        width: Columns of the images.
    """
    num_rows = 2 * len(steps)
    affine = np.tile(np.array(_STAY, np.int32), (num_rows, 1))
    lookup = np.zeros(num_rows, np.int32)
    lookups = [_LEVELS.astype(np.int32)]
    kind = np.full(num_rows, NOTHING, np.int32)
    factor = np.ones(num_rows, np.float32)
    side = np.zeros(num_rows, np.float32)
    for number, step in enumerate(steps):
        if step is None:
            continue
        operation, level = step
        for sign in (0, 1):
            row = 2 * number + sign
            value = magnitude(operation, level)
            if sign and OPERATIONS[operation].mirrored:
                value = -value
            kind[row] = _KINDS.get(operation, NOTHING)
            if operation in _GEOMETRIC:
                affine[row] = _affine(operation, value, height, width)
            elif operation == "Cutout":
                side[row] = value * width
            elif operation in ("Contrast", "Color", "Sharpness"):
                factor[row] = value
            elif kind[row] == NOTHING:
                lookup[row] = len(lookups)
                lookups.append(_lookup(operation, value))
    return OperationTables(affine, lookup, np.stack(lookups), kind, factor, side)


def _affine(operation: str, value: float, height: int, width: int) -> tuple[int, ...]:
    if operation == "TranslateX":
        # Without shear Pillow takes floor(x + 1/2 + offset), with no detour over fixed point.
        return (_FIXED, 0, _shifted(value * width), 0, _FIXED, _FIXED // 2)
    if operation == "TranslateY":
        return (_FIXED, 0, _FIXED // 2, 0, _FIXED, _shifted(value * height))
    if operation == "ShearX":
        return _fixed_point((1.0, value, 0.0, 0.0, 1.0, 0.0))
    if operation == "ShearY":
        return _fixed_point((1.0, 0.0, 0.0, value, 1.0, 0.0))
    angle = -math.radians(value % 360.0)
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = -width / 2, -height / 2
    return _fixed_point(
        (cosine, sine, cosine * x + sine * y - x, -sine, cosine, -sine * x + cosine * y - y)
    )


def _shifted(offset: float) -> int:
    return math.floor(offset + 0.5) * _FIXED + _FIXED // 2


def _fixed_point(matrix: tuple[float, ...]) -> tuple[int, ...]:
    a, b, c, d, e, f = matrix
    centred = (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)
    return tuple(math.floor(value * _FIXED + 0.5) for value in centred)


def _lookup(operation: str, value: float) -> np.ndarray:
    if operation == "Invert":
        table = 255 - _LEVELS
    elif operation == "Solarize":
        table = np.where(value > _LEVELS, _LEVELS, 255 - _LEVELS)
    elif operation == "Posterize":
        table = _LEVELS & -(1 << (8 - int(value)))
    else:
        # Brightness: the image against black, in single precision and cut off.
        table = np.minimum(np.float32(value) * _LEVELS.astype(np.float32), 255).astype(np.int32)
    return table.astype(np.int32)


@functools.cache
def auto_contrast_corrections() -> tuple[np.ndarray, np.ndarray]:
    """Where Pillow's AutoContrast stays one level below the exact quotient.

    A channel with values from lo to hi is stretched by `floor(255 (v − lo) / (hi − lo))`. Pillow
    computes it in double precision and ends, at 12,094 of all (lo, hi, v), just below a whole
    number. They are listed here, since no backend is sure to have double precision.

    Returns:
        Two arrays: `(65536,)` int32, whose entry `256 lo + hi` is a row of the second; and
        `(patterns, 8)` int32, words of 32 bits, one bit per value v.
    """
    patterns = {b"\0" * 32: 0}
    pointers = np.zeros((256, 256), np.int32)
    for lo in range(256):
        for hi in range(lo + 1, 256):
            scale = 255.0 / (hi - lo)
            pillow = (_LEVELS * scale + -lo * scale).astype(np.int64)
            exact = 255 * (_LEVELS - lo) // (hi - lo)
            below = (pillow < exact) & (lo <= _LEVELS) & (hi >= _LEVELS)
            packed = np.packbits(below, bitorder="little").tobytes()
            pointers[lo, hi] = patterns.setdefault(packed, len(patterns))
    words = np.frombuffer(b"".join(patterns), "<u4").reshape(-1, 8)
    return pointers.ravel(), words.astype(np.uint32).view(np.int32)
