"""Naive NumPy oracles: loops that follow the definitions, with no code of the library.

All take batched volumes as `(batch, *spatial, channels)` (channels last) in float64.
"""

import itertools

import numpy as np


def pad_amounts(length, kernel, stride, padding, dilation):
    """`(before, after, output length)` of one axis, by counting windows one after the other."""
    span = (kernel - 1) * dilation + 1
    if padding == "same":
        wanted = len(range(0, length, stride))
        total = 0
        while len(range(0, length + total - span + 1, stride)) < wanted:
            total += 1
        before, after = total // 2, total - total // 2
    elif padding == "causal":
        before, after = span - 1, 0
    elif padding == "valid":
        before, after = 0, 0
    else:
        before, after = padding
    return before, after, len(range(0, length + before + after - span + 1, stride))


def _axes(spatial, kernel_size, strides, padding, dilation_rate):
    pads = [padding] * len(spatial) if isinstance(padding, str) else padding
    return [
        pad_amounts(*axis)
        for axis in zip(spatial, kernel_size, strides, pads, dilation_rate, strict=True)
    ]


def output_shape(spatial, kernel_size, strides, padding, dilation_rate):
    axes = _axes(spatial, kernel_size, strides, padding, dilation_rate)
    return tuple(out for _, _, out in axes)


def local(inputs, kernel, bias, strides, padding, dilation_rate, groups=1):
    """Locally connected layer; `kernel[(*position, *tap)]` is `(in / groups, filters)` matrix."""
    rank = inputs.ndim - 2
    spatial = inputs.shape[1:-1]
    kernel_size = kernel.shape[rank : 2 * rank]
    axes = _axes(spatial, kernel_size, strides, padding, dilation_rate)
    out_shape = tuple(out for _, _, out in axes)
    filters = kernel.shape[-1]
    per_group_in, per_group_out = inputs.shape[-1] // groups, filters // groups
    outputs = np.zeros((inputs.shape[0], *out_shape, filters))
    for position in itertools.product(*map(range, out_shape)):
        for tap in itertools.product(*map(range, kernel_size)):
            place = tuple(
                o * s + t * d - before
                for o, s, t, d, (before, _, _) in zip(
                    position, strides, tap, dilation_rate, axes, strict=True
                )
            )
            if not all(0 <= p < n for p, n in zip(place, spatial, strict=True)):
                continue
            for group in range(groups):
                ins = slice(group * per_group_in, (group + 1) * per_group_in)
                outs = slice(group * per_group_out, (group + 1) * per_group_out)
                outputs[(slice(None), *position, outs)] += (
                    inputs[(slice(None), *place, ins)] @ kernel[(*position, *tap)][:, outs]
                )
    return outputs if bias is None else outputs + bias


def conv(inputs, kernel, bias, strides, padding, dilation_rate, groups=1):
    """Convolution: the locally connected layer whose kernel is the same at each position."""
    out_shape = output_shape(inputs.shape[1:-1], kernel.shape[:-2], strides, padding, dilation_rate)
    tied = np.broadcast_to(kernel, (*out_shape, *kernel.shape))
    return local(inputs, tied, bias, strides, padding, dilation_rate, groups)


def finite_differences(function, array, step=1e-6):
    """Gradient of a scalar function of an array by central differences."""
    gradient = np.zeros_like(array)
    for at in np.ndindex(array.shape):
        saved = array[at]
        array[at] = saved + step
        above = function(array)
        array[at] = saved - step
        below = function(array)
        array[at] = saved
        gradient[at] = (above - below) / (2 * step)
    return gradient
