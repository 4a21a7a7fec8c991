import numpy as np

from tfconvbias import plots
from tfconvbias.analysis import SpectralDensity


def test_one_curve_for_each_density(tmp_path):
    found = SpectralDensity(np.array([[0.0, 10.0]]), np.array([[0.9, 0.1]]), 10, 2)
    figure = plots.eigenvalue_density({"start": found, "end": found}, width=0.5, num_points=281)
    figure.savefig(tmp_path / "a.png")
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == ["start", "end"]
    x, y = axis.lines[0].get_data()
    assert (x[0], x[-1]) == (-2, 12)
    peak = 1 / (0.5 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(y[[40, 240]], [0.9 * peak, 0.1 * peak])
    # One eigenvalue of ten is seen.
    assert axis.get_ylim()[0] < 0.1 * peak
    assert axis.get_yscale() == "log"
