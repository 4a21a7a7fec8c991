"""What commands show: bars on a terminal, plain text elsewhere, no noise of the backend's start."""

import io
import logging
import os
import subprocess
import sys

import pytest

from tfconvbias.terminal import Bars, _is_no_false_alarm, duration
from tfconvbias.training.table import conclusion

NOISE = b"I0000 00:00:1.5 1 port.cc:153] oneDNN custom operations are on.\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_elsewhere_than_on_a_terminal_no_bar_is_drawn(capsys):
    bars = Bars()
    with bars.open("runs", 3):
        bars.advance(1, "loss 2")
    assert capsys.readouterr().out == ""


def test_inner_steps_move_outer_bars_and_skipped_ones_count_as_no_work(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    bars = Bars()
    with bars.open("runs", 6):
        bars.leave_out(1)
        with bars.open("run", 3, done=1):
            bars.advance(2)
            assert [(t.completed, t.total) for t in bars._drawn.tasks] == [(2, 5), (3, 3)]
        with bars.aside("Reading images", 5000) as advance:
            advance(5000)
        assert [t.completed for t in bars._drawn.tasks] == [2]
    assert bars._drawn is None


def test_a_terminals_bar_tells_detail_and_time(monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    bars = Bars()
    with bars.open("s-fc", 4):
        bars.advance(1, "epoch 1/4: loss 2.3")
        bars._drawn.refresh()
    assert "s-fc" in shown.getvalue()
    assert "epoch 1/4: loss 2.3" in shown.getvalue()


QUIET = """
import os
from tfconvbias import terminal
with terminal._without_noise():
    os.write(2, {noise!r} + b"W0000 00:00:1.5 1 x.cc:1] a warning\\n")
os.write(2, b"later\\n")
"""


def test_only_lines_of_information_are_left_out():
    code = QUIET.format(noise=NOISE)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=environment
    )
    assert done.stderr == b"W0000 00:00:1.5 1 x.cc:1] a warning\nlater\n"


@pytest.mark.parametrize(
    ("text", "is_shown"),
    [
        ("5 out of the last 5 calls to %s triggered tf.function retracing. Tracing is …", False),
        ("Gradients do not exist for variables %s", True),
    ],
)
def test_several_models_in_one_process_are_no_alarm(text, is_shown):
    record = logging.LogRecord("tensorflow", logging.WARNING, "", 0, text, ("<one>",), None)
    assert _is_no_false_alarm(record) == is_shown


def row(accuracy, nonzeros, epochs=4):
    return {
        "dataset": "motifs10",
        "test_accuracy": accuracy,
        "kernel_parameters": {"a": 200},
        "nonzeros": {"a": nonzeros},
        "epochs": epochs,
    }


@pytest.mark.parametrize(
    ("results", "sentences"),
    [
        (
            {"S-FC": row(0.5, 200)},
            ["50.00 % of the test images of motifs10 are classified correctly after 4 epochs."],
        ),
        (
            {"S-FC": row(0.5, 50, 1)},
            [
                "50.00 % of the test images of motifs10 are classified correctly after 1 epoch; "
                "25.00 % of the kernel weights are not zero."
            ],
        ),
        (
            {"S-FC": row(0.75, 200), "β": row(0.5, 50)},
            [
                "Highest test accuracy: S-FC, 75.00 %.",
                "Smallest share of non-zero kernel weights: β, 25.00 %, with a test accuracy of "
                "50.00 %.",
            ],
        ),
        ({"a": row(0.5, 200), "b": row(0.4, 200)}, ["Highest test accuracy: a, 50.00 %."]),
        (
            {"a": row(0.5, 200), "b": row(0.5, 200)},
            ["Highest test accuracy: a and b alike, 50.00 %."],
        ),
    ],
)
def test_the_conclusion_says_what_the_rows_say(results, sentences):
    assert conclusion(results) == sentences


def test_durations_are_words():
    assert [duration(s) for s in (3, 119.4, 3600)] == ["3 s", "119 s", "1 h 00 min"]
