"""Which inputs the taps of a convolution read along one axis, and what a cropped kernel needs."""

from dataclasses import dataclass

import numpy as np

from tfconvbias.connectivity import explicit_padding


@dataclass(frozen=True)
class Window:
    """A convolution along one spatial axis: tap t of output o reads input o·s + t·d − low.

    Attributes:
        size: Number of taps.
        stride: s.
        dilation: d.
        low: Zero padding before the axis; None where it depends on an unknown length.
        length: Number of inputs n, None if unknown.
        outputs: Number of outputs, None if unknown.
        high: Zero padding after the axis, None where it depends on an unknown length.
    """

    size: int
    stride: int
    dilation: int
    low: int | None
    high: int | None
    length: int | None
    outputs: int | None


@dataclass(frozen=True)
class Crop:
    """A kernel cut to the taps first…last, and the padding (negative: cropping) that it needs.

    Attributes:
        first: First tap that is kept.
        size: Number of taps that are kept.
        low: Rows of zeros to put before the axis; negative: rows to cut off.
        high: Likewise after it.
        is_same: Whether Keras' `padding="same"` does just that.
    """

    first: int
    size: int
    low: int
    high: int
    is_same: bool


def window(size, stride, dilation, padding, length, outputs) -> Window:
    """The window of a Keras convolution with the padding `"valid"`, `"same"` or `"causal"`."""
    extent = (size - 1) * dilation + 1
    low: int | None = 0
    high: int | None = 0
    if padding == "causal":
        low = extent - 1
    elif padding == "same":
        low, high = _same(extent, stride, length)
    return Window(size, stride, dilation, low, high, length, outputs)


def _same(extent: int, stride: int, length: int | None) -> tuple[int | None, int | None]:
    if stride == 1:
        total = extent - 1
    elif length is None:
        # How many zeros are added depends on the length.
        return (0, 0) if extent == 1 else (None, None)
    else:
        return explicit_padding((length,), extent, stride, "same")[0]
    return total // 2, total - total // 2


def safe_taps(view: Window) -> np.ndarray:
    """Taps that never read padding, boolean array of shape (size,)."""
    taps = np.arange(view.size) * view.dilation
    if view.low is None:
        return np.zeros(view.size, bool)
    if view.length is None or view.outputs is None:
        if view.low == 0 and view.high == 0:
            return np.ones(view.size, bool)
        # As many outputs as inputs: only the tap on the output's own place stays inside.
        return taps == view.low if view.stride == 1 else np.zeros(view.size, bool)
    last = (view.outputs - 1) * view.stride
    return (taps - view.low >= 0) & (last + taps - view.low < view.length)


def crop(view: Window, first: int, last: int) -> Crop | None:
    """The window with the taps first…last only, computing the same outputs from the same inputs.

    Returns:
        The `Crop`, or None if the padding cannot be told because the axis has no static length.
    """
    if view.low is None or view.high is None:
        return None
    size = last - first + 1
    extent = (size - 1) * view.dilation + 1
    low = view.low - first * view.dilation
    if view.length is None or view.outputs is None:
        if view.stride != 1:
            return None
        high = view.high - (view.size - 1 - last) * view.dilation
        is_same = low == (extent - 1) // 2 and high == extent - 1 - low
        return Crop(first, size, low, high, is_same)
    reach = (view.outputs - 1) * view.stride + last * view.dilation - view.low
    exact = reach - (view.length - 1)
    # Up to stride − 1 more inputs at the end are never read: leave them rather than cut them off.
    high = exact if exact > 0 else min(0, exact + view.stride - 1)
    same_low, _ = _same(extent, view.stride, view.length)
    is_same = same_low == low and -(-view.length // view.stride) == view.outputs
    return Crop(first, size, low, high, is_same)
