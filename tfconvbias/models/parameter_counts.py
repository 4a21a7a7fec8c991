"""Exact numbers of kernel parameters, and the width that comes nearest to a budget."""

import math
from collections.abc import Callable

import keras

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.memory import available_bytes, readable
from tfconvbias.models.blocks import check_positive
from tfconvbias.models.layer_tables import CHANNELS_AND_STRIDES, STAGES

FAMILIES = (
    "s_conv",
    "s_local",
    "s_fc",
    "d_conv",
    "d_local",
    "d_fc",
    "three_fc",
    "resnet18",
    "resnet18_local",
    "resnet18_dense",
)

_SUFFIX_CONNECTIVITY = {"conv": "conv", "local": "local", "fc": "dense", "dense": "dense"}

_Shape = tuple[int, int, int]


@checked
def num_kernel_parameters(
    family: str,
    width: PositiveInt,
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: PositiveInt = 10,
    kernel_size: PositiveInt | None = None,
    hidden_ratio: int = 24,
) -> int:
    """Count the entries of a family's kernels, without biases and BatchNorm.

    Args:
        family: `"s_conv"`, `"s_local"`, `"s_fc"`, `"d_conv"`, `"d_local"`, `"d_fc"`, `"three_fc"`,
            `"resnet18"`, `"resnet18_local"` or `"resnet18_dense"`.
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
    sizes = _kernel_sizes(
        family,
        width,
        input_shape=input_shape,
        classes=classes,
        kernel_size=kernel_size,
        hidden_ratio=hidden_ratio,
    )
    return sum(sizes)


def check_memory(family: str, width: int, **shape) -> None:
    """Raise a `MemoryError` before a network is built that does not fit into memory.

    It takes what its kernels take, and as much again as the largest of them, whose initial values
    are drawn beside it. Training it takes the kernels' gradients too, of which nothing is said
    here.

    Args:
        family: As in `num_kernel_parameters`.
        width: As in `num_kernel_parameters`.
        **shape: The other arguments of `num_kernel_parameters`.
    """
    sizes = _kernel_sizes(family, width, **shape)
    item = {"float64": 8, "float32": 4}.get(keras.config.dtype_policy().variable_dtype, 2)
    needed, limit = item * (sum(sizes) + max(sizes)), available_bytes()
    if limit is not None and needed > limit:
        raise MemoryError(
            f"The {len(sizes)} kernels of {family} of width {width} hold {sum(sizes):,} "
            f"parameters: building it takes {readable(needed)}, and training it about twice that, "
            f"but {readable(limit)} are left. The largest kernel has {max(sizes):,} parameters. "
            f"Take fewer channels or a smaller input. Received: {shape}"
        )


def _kernel_sizes(
    family: str,
    width: int,
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    kernel_size: int | None = None,
    hidden_ratio: int = 24,
) -> list[int]:
    """The number of entries of each kernel, in the order of the layers."""
    check_positive(width=width, classes=classes, hidden_ratio=hidden_ratio)
    rows, cols, channels = input_shape
    if family == "three_fc":
        return [rows * cols * channels * width, width * width, width * classes]
    prefix, connectivity = _parse(family)
    volume = (rows, cols, channels)
    if prefix == "resnet18":
        return _resnet18(width, volume, classes, kernel_size or 3, connectivity)
    layers: tuple[tuple[int, int], ...]
    if prefix == "s":
        layers, fc1, size = ((1, 2),), hidden_ratio * width, kernel_size or 9
    else:
        layers, fc1, size = CHANNELS_AND_STRIDES, 64 * width, kernel_size or 3
    sizes = []
    for multiple, strides in layers:
        entries, volume = _connection(volume, multiple * width, size, strides, connectivity)
        sizes.append(entries)
    return [*sizes, math.prod(volume) * fc1, fc1 * classes]


def _connection(
    volume: _Shape, filters: int, size: int, strides: int, connectivity: str
) -> tuple[int, _Shape]:
    """The entries of the kernel between two volumes, and the second of them."""
    rows, cols, channels = volume
    out = (-(-rows // strides), -(-cols // strides), filters)
    if connectivity == "dense":
        return math.prod(volume) * math.prod(out), out
    per_position = size * size * channels * filters
    return per_position * (out[0] * out[1] if connectivity == "local" else 1), out


@checked
def base_channels_for_budget(
    family: str,
    num_params: PositiveInt,
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: PositiveInt = 10,
    kernel_size: PositiveInt | None = None,
) -> int:
    """The width whose kernel parameter count comes nearest to a budget.

    Args:
        family: `"s_conv"`, `"s_local"`, `"s_fc"`, `"d_conv"`, `"d_local"`, `"d_fc"`, `"three_fc"`,
            `"resnet18"`, `"resnet18_local"` or `"resnet18_dense"`.
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
    return prefix, _SUFFIX_CONNECTIVITY[suffix or "conv"]


def _resnet18(width: int, volume: _Shape, classes: int, size: int, connectivity: str) -> list[int]:
    entries, volume = _connection(volume, width, size, 1, connectivity)
    sizes = [entries]
    for multiple, stage_strides in STAGES:
        filters = multiple * width
        for strides in (stage_strides, 1):
            first, middle = _connection(volume, filters, size, strides, connectivity)
            second, out = _connection(middle, filters, size, 1, connectivity)
            sizes += [first, second]
            if volume != out:
                sizes.append(_connection(volume, filters, 1, strides, connectivity)[0])
            volume = out
    return [*sizes, volume[2] * classes]
