"""Bits are drawn beside the model that they belong to."""

import numpy as np
import pytest

from tfconvbias import plots


def test_each_model_has_a_row_of_its_own_from_above():
    figure = plots.code_lengths(["a", "b"], {"plain": [100.0, 10.0], "sparse": [7.0, 8.0]})
    (axis,) = figure.axes
    plain, sparse = axis.get_lines()
    np.testing.assert_array_equal(plain.get_xydata(), [[100, 0], [10, 1]])
    np.testing.assert_array_equal(sparse.get_xydata(), [[7, 0], [8, 1]])
    assert [text.get_text() for text in axis.get_yticklabels()] == ["a", "b"]
    assert axis.get_xscale() == "log" and axis.yaxis_inverted()
    assert plain.get_marker() != sparse.get_marker() and plain.get_color() != sparse.get_color()
    with pytest.raises(ValueError, match="for each of the 2 models"):
        plots.code_lengths(["a", "b"], {"plain": [1.0]})
