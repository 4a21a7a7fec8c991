"""Exact numbers of kernel parameters, and the width that comes nearest to a budget."""

from collections.abc import Callable

from tfconvbias.models.blocks import check_positive
from tfconvbias.models.d_conv import CHANNELS_AND_STRIDES
from tfconvbias.models.resnet18 import STAGES

FAMILIES = (
    "s_conv",
    "s_local",
    "s_fc",
    "d_conv",
    "d_local",
    "d_fc",
    "three_fc",
    "resnet18",
)

_SUFFIX_CONNECTIVITY = {"conv": "conv", "local": "local", "fc": "dense"}


def num_kernel_parameters(
    family: str,
    width: int,
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    kernel_size: int | None = None,
    hidden_ratio: int = 24,
) -> int:
    """Count the entries of a family's kernels, without biases and BatchNorm.

    Args:
        family: `"s_conv"`, `"s_local"`, `"s_fc"`, `"d_conv"`, `"d_local"`, `"d_fc"`, `"three_fc"`
            or `"resnet18"`.
        width: Base channels α, or the hidden units of `"three_fc"`.
        input_shape: `(rows, cols, channels)`.
        classes: Number of logits.
        kernel_size: Side of the receptive fields. Defaults to 9 for the S- family and 3 otherwise.
        hidden_ratio: Units of fc1 by α in the S- family.

    Returns:
        The exact count, also for odd image sizes, where the paper's formulas are approximate.

    Raises:
        ValueError: If the family is unknown or the width is not a positive integer.

    Example:
        >>> num_kernel_parameters("s_fc", 150)
        256240800
        >>> num_kernel_parameters("d_conv", 15)
        1445955

    Reference:
        Neyshabur, "Towards Learning Convolutions from Scratch", 2020, Tables 3 and 4. The paper's
        D-LOCAL column repeats the factors of D-FC; the count here is that of the layers themselves.
    """
    check_positive(width=width, classes=classes, hidden_ratio=hidden_ratio)
    rows, cols, channels = input_shape
    if family == "three_fc":
        return (rows * cols * channels + width + classes) * width
    if family == "resnet18":
        return _resnet18(width, input_shape, classes, kernel_size or 3)
    prefix, connectivity = _parse(family)
    layers: tuple[tuple[int, int], ...]
    if prefix == "s":
        layers, fc1, size = ((1, 2),), hidden_ratio * width, kernel_size or 9
    else:
        layers, fc1, size = CHANNELS_AND_STRIDES, 64 * width, kernel_size or 3
    total = 0
    for multiple, strides in layers:
        out = (-(-rows // strides), -(-cols // strides), multiple * width)
        per_position = size * size * channels * out[2]
        positions = out[0] * out[1]
        total += {
            "conv": per_position,
            "local": per_position * positions,
            "dense": rows * cols * channels * positions * out[2],
        }[connectivity]
        rows, cols, channels = out
    return total + rows * cols * channels * fc1 + fc1 * classes


def base_channels_for_budget(
    family: str,
    num_params: int,
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    kernel_size: int | None = None,
) -> int:
    """The width whose kernel parameter count comes nearest to a budget.

    Args:
        family: `"s_conv"`, `"s_local"`, `"s_fc"`, `"d_conv"`, `"d_local"`, `"d_fc"`, `"three_fc"`
            or `"resnet18"`.
        num_params: The budget, in kernel parameters.
        input_shape: `(rows, cols, channels)`.
        classes: Number of logits.
        kernel_size: Side of the receptive fields. Defaults to 9 for the S- family and 3 otherwise.

    Returns:
        Base channels α (hidden units for `"three_fc"`), at least 1.

    Raises:
        ValueError: If the family is unknown, or the budget is below the narrowest member.

    Example:
        >>> base_channels_for_budget("s_fc", 256_000_000)
        150
    """

    def count(width: int) -> int:
        return num_kernel_parameters(
            family, width, input_shape=input_shape, classes=classes, kernel_size=kernel_size
        )

    if num_params < count(1):
        raise ValueError(
            f"`num_params` must be at least {count(1)}, the count of the narrowest {family}. "
            f"Received: num_params={num_params}"
        )
    low = _largest_within(count, num_params)
    return min((low, low + 1), key=lambda width: abs(count(width) - num_params))


def _largest_within(count: Callable[[int], int], budget: int) -> int:
    """The largest width whose count does not exceed the budget (counts grow with width)."""
    high = 2
    while count(high) <= budget:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if count(middle) <= budget:
            low = middle
        else:
            high = middle
    return low


def _parse(family: str) -> tuple[str, str]:
    if family not in FAMILIES:
        raise ValueError(f"`family` must be one of {FAMILIES}. Received: family={family}")
    prefix, _, suffix = family.partition("_")
    return prefix, _SUFFIX_CONNECTIVITY[suffix]


def _resnet18(width: int, input_shape: tuple[int, int, int], classes: int, size: int) -> int:
    taps = size * size
    total = taps * input_shape[2] * width
    channels = width
    for multiple, strides in STAGES:
        filters = multiple * width
        total += taps * filters * (channels + 3 * filters)
        if strides != 1 or channels != filters:
            total += channels * filters
        channels = filters
    return total + channels * classes
