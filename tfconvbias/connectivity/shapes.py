"""Shapes and padding of a convolution, axis by axis, as Keras' convolutions compute them."""

from collections.abc import Iterable, Sequence
from operator import index
from typing import TypeAlias

from tfconvbias.arguments import checked

Ints: TypeAlias = int | Sequence[int]
Padding: TypeAlias = str | Sequence[Sequence[int]]


def as_tuple(value: Ints, rank: int, name: str, allow_zero: bool = False) -> tuple[int, ...]:
    """Repeats an int `rank` times, or checks a sequence of `rank` ints.

    Args:
        value: Int or sequence of ints.
        rank: Expected length.
        name: Argument's name, for the message.
        allow_zero: Whether 0 is a legal entry.

    Returns:
        Tuple of `rank` ints.

    Raises:
        ValueError: If an entry is not an int or out of range, or the length is wrong.

    Example:
        >>> as_tuple(3, 2, "kernel_size")
        (3, 3)
    """
    expected = f"{'non-negative' if allow_zero else 'positive'} integers"
    try:
        entries = value if isinstance(value, Iterable) else [value] * rank
        result = tuple(index(entry) for entry in entries)
    except TypeError:
        result = ()
    if len(result) != rank or min(result) < (0 if allow_zero else 1):
        raise ValueError(
            f"The argument `{name}` must be one int or {rank} ints, all {expected}. "
            f"Received: {name}={value}"
        )
    return result


@checked
def explicit_padding(
    spatial_shape: Sequence[int],
    kernel_size: Ints,
    strides: Ints = 1,
    padding: Padding = "valid",
    dilation_rate: Ints = 1,
) -> tuple[tuple[int, int], ...]:
    """Numbers of zeros that a convolution puts before and after each spatial axis.

    With input length `n`, kernel size `k`, stride `s` and dilation `d`, the kernel spans
    `e = d (k − 1) + 1` inputs and

    - `"valid"` pads `(0, 0)`;
    - `"same"` pads `p = max((⌈n / s⌉ − 1) s + e − n, 0)` in all, `⌊p / 2⌋` of them before. Where
      `p` is odd, one zero more comes after than before, as in TensorFlow;
    - `"causal"` pads `(e − 1, 0)`.

    Args:
        spatial_shape: Input lengths, one to three of them in Keras' layers; any rank works here.
        kernel_size: Int or one int per axis.
        strides: Int or one int per axis.
        padding: `"valid"`, `"same"`, `"causal"`, or one `(before, after)` pair per axis, which is
            returned as it is (a `ZeroPadding` layer ahead of a `"valid"` convolution).
        dilation_rate: Int or one int per axis.

    Returns:
        One `(before, after)` pair per axis.

    Raises:
        ValueError: If an argument has the wrong length or an entry out of range, or `padding` is
            unknown.

    Example:
        >>> explicit_padding((32, 32), 9, strides=2, padding="same")
        ((3, 4), (3, 4))
        >>> explicit_padding((31,), 3, strides=2, padding="same")
        ((1, 1),)
    """
    rank = len(spatial_shape)
    lengths = as_tuple(tuple(spatial_shape), rank, "spatial_shape")
    kernel = as_tuple(kernel_size, rank, "kernel_size")
    stride = as_tuple(strides, rank, "strides")
    dilation = as_tuple(dilation_rate, rank, "dilation_rate")
    if not isinstance(padding, str):
        if len(padding) != rank:
            raise ValueError(
                f"The argument `padding` must be a string or {rank} pairs (before, after). "
                f"Received: padding={padding}"
            )
        pairs = [as_tuple(tuple(pair), 2, "padding", allow_zero=True) for pair in padding]
        return tuple((before, after) for before, after in pairs)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    if padding == "valid":
        return ((0, 0),) * rank
    if padding == "causal":
        return tuple((span - 1, 0) for span in spans)
    if padding == "same":
        totals = [
            max((-(-n // s) - 1) * s + span - n, 0)
            for n, s, span in zip(lengths, stride, spans, strict=True)
        ]
        return tuple((total // 2, total - total // 2) for total in totals)
    raise ValueError(
        "The argument `padding` must be 'valid', 'same', 'causal' or pairs (before, after). "
        f"Received: padding={padding}"
    )


@checked
def conv_output_shape(
    spatial_shape: Sequence[int],
    kernel_size: Ints,
    strides: Ints = 1,
    padding: Padding = "valid",
    dilation_rate: Ints = 1,
) -> tuple[int, ...]:
    """Spatial shape of a convolution's output.

    Along each axis, with padding `(b, a)`: `⌊(n + b + a − d (k − 1) − 1) / s⌋ + 1`.

    Args:
        spatial_shape: Input lengths.
        kernel_size: Int or one int per axis.
        strides: Int or one int per axis.
        padding: As in `explicit_padding`.
        dilation_rate: Int or one int per axis.

    Returns:
        Tuple of ints, one per axis.

    Raises:
        ValueError: If the kernel does not fit in the padded input, or as in `explicit_padding`.

    Example:
        >>> conv_output_shape((32, 32), 9, strides=2, padding="same")
        (16, 16)
    """
    rank = len(spatial_shape)
    pads = explicit_padding(spatial_shape, kernel_size, strides, padding, dilation_rate)
    kernel = as_tuple(kernel_size, rank, "kernel_size")
    stride = as_tuple(strides, rank, "strides")
    dilation = as_tuple(dilation_rate, rank, "dilation_rate")
    output = tuple(
        (n + before + after - d * (k - 1) - 1) // s + 1
        for n, (before, after), k, s, d in zip(
            spatial_shape, pads, kernel, stride, dilation, strict=True
        )
    )
    if min(output) < 1:
        raise ValueError(
            "The output would be empty: each spatial axis must hold the kernel at least once. "
            f"Received: spatial_shape={tuple(spatial_shape)}, kernel_size={kernel}, "
            f"strides={stride}, padding={padding}, dilation_rate={dilation}"
        )
    return output
