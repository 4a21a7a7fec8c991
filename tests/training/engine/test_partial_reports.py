"""A comparison one of whose runs is killed whenever it is tried: the others are reported."""

import os
import shlex
import sys

import engine_tasks
import pytest

from tfconvbias import training

RUN = engine_tasks.Mortal(
    base_channels=1,
    dataset="motifs10",
    num_train=60,
    num_test=20,
    epochs=1,
    batch_size=20,
    tensorboard=False,
    verbose="silent",
)


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("where", [{"jobs": 2}, {"ray": "local"}])
def test_the_report_says_which_runs_are_missing(where, tmp_path, monkeypatch, capsys):
    if "ray" in where:
        pytest.importorskip("ray")
    monkeypatch.setenv("ENGINE_TASKS_DRIVER", str(os.getpid()))
    monkeypatch.setattr(sys, "argv", ["compare.py", "--jobs", "2"])
    comparison = training.Comparison(
        run=RUN.replace(run_dir=str(tmp_path)),
        rows={"lives": {"seed": 0}, "dies": {"seed": 13}},
        retries=1,
        **where,
    )
    with pytest.raises(SystemExit) as end:
        training.guarded(lambda: training.report_comparison(comparison))
    assert end.value.code == 1
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "1 of 2 runs is missing: dies. The same command with --resume continues" in page
    assert "lives" in page
    shown = capsys.readouterr()
    assert "| lives" in shown.out.replace("\n", "\n| ") and "Report:" in shown.out
    assert "dies: " in shown.err and "2 times in all" in shown.err
    assert shlex.join(["python", "compare.py", "--jobs", "2", "--resume"]) in shown.err
