import keras
import numpy as np
import pytest

from tfconvbias.surgery.geometry import Window, crop, safe_taps, window


def read_positions(view):
    """Naive list of (output, tap, input position) of a window."""
    return [
        (output, tap, output * view.stride + tap * view.dilation - view.low)
        for output in range(view.outputs)
        for tap in range(view.size)
    ]


CASES = [
    (size, stride, dilation, padding, length)
    for size in (1, 2, 3, 5)
    for stride, dilation in ((1, 1), (2, 1), (3, 1), (1, 2))
    for padding in ("same", "valid")
    for length in (7, 8, 11)
    if padding == "same" or length >= (size - 1) * dilation + 1
]


def outputs_of(size, stride, dilation, padding, length):
    layer = keras.layers.Conv1D(1, size, strides=stride, dilation_rate=dilation, padding=padding)
    return layer.compute_output_shape((None, length, 1))[1]


@pytest.mark.parametrize(("size", "stride", "dilation", "padding", "length"), CASES)
def test_safe_taps_and_crops_against_the_definition(size, stride, dilation, padding, length):
    outputs = outputs_of(size, stride, dilation, padding, length)
    view = window(size, stride, dilation, padding, length, outputs)
    safe = np.ones(size, bool)
    for _, tap, place in read_positions(view):
        safe[tap] &= 0 <= place < length
    assert safe_taps(view).tolist() == safe.tolist()
    for first in range(size):
        for last in range(first, size):
            cut = crop(view, first, last)
            padded = cut.low + length + cut.high
            extent = (cut.size - 1) * dilation + 1
            assert (padded - extent) // stride + 1 == outputs
            assert all(
                output * stride + tap * dilation - cut.low
                == output * stride + (tap + first) * dilation - view.low
                for output in range(outputs)
                for tap in range(cut.size)
            )
            if cut.is_same:
                same = window(cut.size, stride, dilation, "same", length, outputs)
                assert same.low == cut.low


def test_unknown_length():
    view = window(3, 1, 1, "same", None, None)
    assert safe_taps(view).tolist() == [False, True, False]
    centre = crop(view, 1, 1)
    assert (centre.low, centre.high, centre.is_same) == (0, 0, True)
    corner = crop(view, 0, 1)
    assert (corner.low, corner.high, corner.is_same) == (1, 0, False)
    strided = window(3, 2, 1, "same", None, None)
    assert crop(strided, 1, 1) is None
    assert not safe_taps(strided).any()


def test_causal_padding():
    view = window(3, 1, 2, "causal", 9, 9)
    assert safe_taps(view).tolist() == [False, False, True]
    assert crop(view, 2, 2).low == 0


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize(("first", "last"), [(0, 4), (1, 4), (0, 3), (2, 3)])
def test_a_crop_on_an_axis_of_any_length_keeps_the_outputs_where_they_are(dilation, first, last):
    extent = 4 * dilation + 1
    low, high = (extent - 1) // 2, extent - 1 - (extent - 1) // 2
    view = Window(5, 1, dilation, low, high, None, None)
    cut = crop(view, first, last)
    own_extent = (cut.size - 1) * dilation + 1
    # As many outputs for every length, and the first tap reads what it read before.
    assert cut.low + cut.high - own_extent == low + high - extent
    assert cut.low == low - first * dilation
    assert (cut.first, cut.size) == (first, last - first + 1)
