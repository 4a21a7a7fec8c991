"""Kernels of Keras 2's locally connected layers, in the layout of this package's."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tfconvbias.connectivity import axis_indices, conv_output_shape, patch_indices

Pairs = tuple[tuple[int, int], ...]


class Window(NamedTuple):
    """Where the kernels of a locally connected layer stand on its input.

    Attributes:
        spatial: Input lengths.
        kernel_size: One int per axis.
        strides: One int per axis.
        padding: `"valid"`, `"same"`, or `(before, after)` zeros of each axis.
    """

    spatial: tuple[int, ...]
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str | Pairs


def check_implementation(implementation: Any) -> None:
    """Refuses what is none of Keras 2's three implementations.

    Raises:
        ValueError: If it is not 1, 2 or 3.
    """
    if implementation not in (1, 2, 3):
        raise ValueError(
            "The argument `implementation` must be 1, 2 or 3 (all three compute the same here). "
            f"Received: implementation={implementation}"
        )


def kernel_from_keras2(kernel: np.ndarray, layer: Any, margin: Pairs | None = None) -> np.ndarray:
    """The kernel of a Keras 2 locally connected layer, in the layout of `layer`.

    With `n` inputs, `p` output positions, `k` taps, `c` channels and `f` filters, Keras 2 stored

    - implementation 1: `(p, k · c, f)`, or `(p, c · k, f)` for `"channels_first"`;
    - implementation 2: a dense matrix from the volume of the inputs to that of the outputs,
      `(n, c, p, f)` or `(c, n, f, p)`, of which the entries outside the windows were masked;
    - implementation 3: the entries inside the windows as one vector, sorted by the flat index of
      the output unit and then by that of the input unit.

    Entries that only ever see padding were not stored by implementations 2 and 3. They become zero.

    Args:
        kernel: Kernel of Keras 2; the number of its axes tells the implementation.
        layer: A built `LocallyConnected1D` or `LocallyConnected2D` of this package.
        margin: Zeros that a `ZeroPadding` layer puts around the input of `layer`. A kernel that
            Keras 2 held for `padding="same"` on the smaller input is then taken as well.

    Returns:
        Array of the shape of `layer.kernel`.

    Raises:
        ValueError: If the kernel's shape is none that the layer could have had in Keras 2, the
            layer has options that Keras 2 did not have, or Keras 2 padded differently.
    """
    _check_options(layer)
    window, channels = _window(layer)
    windows = [window]
    if margin is not None and layer.padding == "valid":
        smaller = tuple(n - sum(zeros) for n, zeros in zip(window.spatial, margin, strict=True))
        windows.append(window._replace(spatial=smaller, padding=margin))
    filters, is_last = layer.filters, layer.data_format == "channels_last"
    if kernel.ndim == 3:
        windows = windows[:1]  # implementation 1 did not pad
    for candidate in windows:
        if candidate.padding != "valid" and kernel.ndim != 3 and not _as_keras2(candidate):
            if candidate is not window:
                continue
            raise ValueError(_other_padding(layer, window))
        patches = patch_indices(*candidate)
        if kernel.shape in _shapes(candidate, patches, channels, filters, is_last):
            values = _read(kernel, candidate, patches, channels, filters, is_last)
            return values.reshape(tuple(layer.kernel.shape))
    expected = _shapes(window, patch_indices(*window), channels, filters, is_last)
    raise ValueError(
        f"The kernel of layer {layer.name!r} has another shape in Keras 2: expected one of "
        f"{', '.join(map(str, expected))} (implementations 1, 2 and 3). "
        f"Received: shape={kernel.shape}"
    )


def bias_from_keras2(bias: np.ndarray, layer: Any) -> np.ndarray:
    """The bias of a Keras 2 locally connected layer, in the layout of `layer`.

    Its shape `(*output, filters)` was the same, but for `"channels_first"` Keras 2 read it in the
    order `(filters, *output)`, by a reshape instead of a transposition.

    Args:
        bias: Bias of Keras 2.
        layer: A built `LocallyConnected1D` or `LocallyConnected2D` of this package.

    Returns:
        Array of the shape of `bias`.
    """
    if layer.data_format == "channels_last":
        return bias
    return np.moveaxis(bias.reshape(bias.shape[-1], *bias.shape[:-1]), 0, -1)


def looks_like_keras2(layer: Any) -> bool:
    """Whether implementation 2's kernel would have the shape of the layer's own, by chance.

    It takes as many inputs, taps, channels and output positions along each axis, more than one.

    Args:
        layer: A built `LocallyConnected1D` or `LocallyConnected2D` of this package.
    """
    window, channels = _window(layer)
    is_last = layer.data_format == "channels_last"
    shapes = _shapes(window, patch_indices(*window), channels, layer.filters, is_last)
    return max(window.spatial) > 1 and tuple(layer.kernel.shape) in shapes


def keras2_same_padding(
    spatial: Sequence[int], kernel_size: Sequence[int], strides: Sequence[int]
) -> Pairs:
    """Zeros before and after each axis, as Keras 2's locally connected layers padded for "same".

    They always put `⌊k / 2⌋` zeros before. A convolution puts half of the zeros that it needs
    there, which is one fewer for an even `k`, and often fewer for strides.

    Args:
        spatial: Input lengths.
        kernel_size: One int per axis.
        strides: One int per axis.

    Example:
        >>> keras2_same_padding((7, 7), (3, 2), (1, 1))
        ((1, 1), (1, 0))
    """
    pairs = []
    for n, k, s in zip(spatial, kernel_size, strides, strict=True):
        before, last = k // 2, (-(-n // s) - 1) * s
        pairs.append((before, max(last + k - before - n, 0)))
    return tuple(pairs)


def _check_options(layer: Any) -> None:
    if layer.rank > 2 or layer.padding == "causal":
        had = "no LocallyConnected3D" if layer.rank > 2 else "no causal padding"
    elif set(layer.dilation_rate) != {1} or layer.groups != 1:
        had = "neither dilation nor groups"
    else:
        return
    raise ValueError(
        f"Keras 2 had {had}, so that its weights cannot belong to this layer. "
        f"Received: layer={layer.name!r}"
    )


def _window(layer: Any) -> tuple[Window, int]:
    """The window of a built layer and the number of its input's channels."""
    shape = [layer.input_spec.axes[axis] for axis in range(1, layer.rank + 2)]
    channels = shape.pop(-1 if layer.data_format == "channels_last" else 0)
    return Window(tuple(shape), layer.kernel_size, layer.strides, layer.padding), channels


def _as_keras2(window: Window) -> bool:
    """Whether the windows stand where Keras 2 put them for `padding="same"`."""
    same = keras2_same_padding(window.spatial, window.kernel_size, window.strides)
    ours, theirs = axis_indices(*window), axis_indices(*window._replace(padding=same))
    return all(np.array_equal(*tables) for tables in zip(ours, theirs, strict=True))


def _other_padding(layer: Any, window: Window) -> str:
    pairs = keras2_same_padding(window.spatial, window.kernel_size, window.strides)
    padding = pairs if layer.rank == 2 else pairs[0]
    return (
        "For this window Keras 2's padding='same' put the zeros elsewhere than a convolution "
        f"does. Build layer {layer.name!r} with padding='valid' and put "
        f"keras.layers.ZeroPadding{layer.rank}D({padding}) before it; the weights then load. "
        f"Received: kernel_size={window.kernel_size}, strides={window.strides}, "
        f"spatial_shape={window.spatial}"
    )


def _shapes(window, patches, channels, filters, is_last) -> tuple[tuple[int, ...], ...]:
    """The shapes of the kernel in the three implementations of Keras 2."""
    output = conv_output_shape(*window)
    positions, taps = patches.shape
    first = (positions, taps * channels, filters)
    if is_last:
        second = (*window.spatial, channels, *output, filters)
    else:
        second = (channels, *window.spatial, filters, *output)
    return first, second, (int((patches >= 0).sum()) * channels * filters,)


def _read(kernel, window, patches, channels, filters, is_last) -> np.ndarray:
    """The kernel as `(positions, taps, channels, filters)`, zero where a tap meets padding."""
    positions, taps = patches.shape
    if kernel.ndim == 3:
        if is_last:
            return kernel.reshape(positions, taps, channels, filters)
        return kernel.reshape(positions, channels, taps, filters).transpose(0, 2, 1, 3)
    inputs = int(np.prod(window.spatial))
    if kernel.ndim == 1:
        return _sorted_entries(kernel, patches, inputs, channels, filters, is_last)
    if is_last:
        matrix = kernel.reshape(inputs, channels, positions, filters)
    else:
        matrix = kernel.reshape(channels, inputs, filters, positions).transpose(1, 0, 3, 2)
    values = matrix[patches, :, np.arange(positions)[:, None], :]
    return np.where(patches[:, :, None, None] >= 0, values, 0).astype(kernel.dtype)


def _sorted_entries(kernel, patches, inputs, channels, filters, is_last) -> np.ndarray:
    """Spreads implementation 3's vector over `(positions, taps, channels, filters)`."""
    positions, taps = patches.shape
    shape = (positions, taps, channels, filters)
    position, _, channel, one_filter = np.ogrid[tuple(map(slice, shape))]
    tap_input = patches[:, :, None, None]
    if is_last:
        unit, source = position * filters + one_filter, tap_input * channels + channel
    else:
        unit, source = one_filter * positions + position, channel * inputs + tap_input
    is_real = np.broadcast_to(tap_input >= 0, shape)
    unit, source = (np.broadcast_to(index, shape)[is_real] for index in (unit, source))
    entries = np.empty(kernel.shape, kernel.dtype)
    entries[np.lexsort((source, unit))] = kernel
    values = np.zeros(shape, kernel.dtype)
    values[is_real] = entries
    return values
