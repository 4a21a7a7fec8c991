import math

import pytest

from tfconvbias.studies.edge_of_stability.criteria import check_stability, gap_slopes
from tfconvbias.studies.edge_of_stability.report import unsettled_findings


def _row(connectivity="conv", num_train=256, patch_size=4, seed=0, **values):
    row = {"train_error": 0.0, "gap": 1.0, "relative_sharpness": 1.0, **values}
    config = {"connectivity": connectivity, "num_train": num_train, "patch_size": patch_size}
    history = {"path_norm": [1.0, 2.0], "path_norm_bound": [2.0, 3.0]} | {"time": [0.0, 3800.2]}
    return row | {"config": config | {"seed": seed}, "history": history}


def _architectures(**conv):
    rows = [_row("dense", gap=1.9), _row("local", train_error=0.2, gap=2.0)]
    return {"architectures": [*rows, _row("conv", **({"train_error": 0.9, "gap": 0.5} | conv))]}


def _failed(rows):
    return [check.name for check in check_stability(rows) if not check.passed]


def test_criteria_pass_and_fail():
    assert _failed(_architectures()) == []
    assert _failed(_architectures(gap=1.0)) == ["gap, conv, at ηt = 3800"]
    assert _failed(_architectures(train_error=0.5)) == ["training error, conv, at ηt = 3800"]
    assert _failed(_architectures(relative_sharpness=0.8)) == ["λη/2, smallest of all runs"]
    # Half of the smaller one of the others, be it dense or local.
    rows = _architectures()
    rows["architectures"][1]["gap"] = 0.9
    assert _failed(rows) == ["gap, conv, at ηt = 3800"]
    rows = _architectures()
    rows["architectures"][0]["history"]["path_norm"][0] = 2.5
    assert len(_failed(rows)) == 1


def test_criteria_show_the_stated_bounds():
    """The bounds of the accepted pilot, in words."""
    shown = {check.name: check.wanted for check in check_stability(_architectures())}
    assert shown == {
        "path norm − bound, largest of all measurements": "≤ 0",
        "λη/2, smallest of all runs": "≥ 0.85",
        "λη/2, largest of all runs": "≤ 1.1",
        "training error, dense": "< 0.1",
        "training error, local": "< 0.35",
        "training error, conv, at ηt = 3800": "> 0.6",
        "gap, conv, at ηt = 3800": "< 0.95, half of dense and local",
    }


def test_slopes_are_those_of_a_power_law():
    rows = [_row("conv", n, gap=3 * n**-0.5) for n in (64, 256, 1024)]
    rows += [_row("dense", n, gap=2.0) for n in (64, 256, 1024)]
    slopes = gap_slopes(rows)
    assert slopes["conv"] == pytest.approx((-0.5, 0.0), abs=1e-6)
    assert _failed({"sizes": rows}) == []
    rows = [_row("conv") for _ in range(3)]
    for row, dimension in zip(rows, (20, 40, 80), strict=True):
        row["config"]["dimension"] = dimension
        row["gap"] = 0.1 * dimension
    assert gap_slopes(rows, "dimension")["conv"] == pytest.approx((1.0, 0.0), abs=1e-6)
    flat = [_row(c, n, gap=1.0) for c in ("conv", "dense") for n in (64, 256, 1024)]
    assert _failed({"sizes": flat}) == ["slope of log gap against log n at ηt = 3800, conv"]


def test_patch_sizes_are_judged_by_their_medians():
    rows = [
        _row(patch_size=m, seed=seed, train_error=1 / m, gap=gap + seed)
        for m, gap in ((1, -0.9), (8, 0.1), (40, 1.0))
        for seed in range(3)
    ]
    assert _failed({"patch_sizes": rows}) == []
    # One seed that is far off changes the mean, not the median.
    rows[2]["gap"] = 9.0
    assert _failed({"patch_sizes": rows}) == []
    rows[0]["gap"] = rows[1]["gap"] = 2.0
    assert _failed({"patch_sizes": rows}) == ["gap, m = 1"]


def test_two_sizes_have_no_error_of_their_slope():
    slope, error = gap_slopes(
        [_row("conv", n, gap=1 / n, seed=s) for n in (64, 256) for s in (0, 1)]
    )["conv"]
    assert slope == pytest.approx(-1)
    assert math.isnan(error)


def test_gaps_that_still_change_are_said_to_be_those_of_the_stopping_time():
    still = [_row(gap=2.0, gap_at_half_time=1.85), _row(gap=-0.1, gap_at_half_time=-0.1)]
    moving = [_row(gap=0.5, gap_at_half_time=0.4), _row(gap=0.4, gap_at_half_time=0.5)]
    assert unsettled_findings({"dense": still}) == []
    (found,) = unsettled_findings({"dense": still, "conv": [*moving, still[0]]})
    assert "2 of 3 runs of conv" in found
    assert "dense" not in found
