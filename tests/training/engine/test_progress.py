"""The time that is left, by what was trained before."""

import pytest

from tfconvbias.training.engine import Progress


def test_each_kind_has_its_own_pace_and_the_others_the_mean():
    lines = []
    progress = Progress({"slow": 30, "fast": 10, "new": 10}, 5, lines.append)
    assert progress.seconds_left() == 0
    progress.done("slow", "one", epochs=10, seconds=100.0)
    progress.done("fast", "two", epochs=5, seconds=5.0)
    # 20 · 10 s, 5 · 1 s, and 10 at the mean of 105 s / 15 epochs.
    assert progress.seconds_left() == pytest.approx(200 + 5 + 70)
    progress.skip("slow", epochs=20)
    assert progress.seconds_left() == pytest.approx(5 + 70)
    assert lines[0].startswith("[1/5] one; ")
    assert lines[1] == "[2/5] two; 5 min left"


def test_runs_at_a_time_share_the_time_that_is_left():
    progress = Progress({"any": 10}, 5, lambda _: None, at_once=3)
    progress.done("any", "one", epochs=2, seconds=60.0)
    # 8 epochs of 30 s among three; with one run left it has them to itself.
    assert progress.seconds_left() == pytest.approx(80)
    for _ in range(3):
        progress.skip("any", epochs=2)
    assert progress.seconds_left() == pytest.approx(60)
