"""The benchmark at real scale: its pieces, its arithmetic, and that it needs no TensorFlow."""

import json
import os
import runpy
import subprocess
import sys
import types
from pathlib import Path

import keras
import pytest

from tfconvbias import data, models, training
from tfconvbias.training import PAUSED_STATUS

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "real_scale.py"
SMALL = ["--demo", "--num-train", "128", "--batch-size", "64"]
WITHOUT_TENSORFLOW = """
import runpy, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "tensorflow_datasets"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
assert "tensorflow" not in sys.modules
"""


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


def test_flop_of_a_step_are_those_of_the_products(script):
    dataset = data.load("motifs10")
    for connectivity, name in (("dense", "s_fc"), ("local", "s_local")):
        config = training.RunConfig(connectivity=connectivity, base_channels=4, batch_size=2)
        first = 768 * 256 * 4 * (4 if connectivity == "dense" else 243 / 768)
        # Each weight is used once an image.
        expected = 2 * (6 * models.num_kernel_parameters(name, 4) - 2 * first)
        assert script["step_flop"](config, dataset) == expected
    conv = training.RunConfig(connectivity="conv", base_channels=4, batch_size=2)
    assert script["step_flop"](conv, dataset) == expected


def test_a_call_goes_on_where_the_last_one_stopped(script, tmp_path, monkeypatch, capfd):
    def call(*words, status):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *SMALL, "--epochs", "2", *words])
        sys.argv += ["--run-dir", str(tmp_path), "--rows", "s-conv-sgd"]
        if status:
            with pytest.raises(SystemExit) as stop:
                script["main"]()
            assert stop.value.code == status
        else:
            script["main"]()
        return json.loads((tmp_path / "real_scale.json").read_text())["rows"]

    (row,) = call("--minutes", "0.001", "--peak-tflops", "1", status=PAUSED_STATUS)
    assert "the same command goes on" in capfd.readouterr().out
    assert row["epochs"] == 1
    assert row["test_accuracy"] is None

    def in_this_process(command, check):
        monkeypatch.setattr(sys, "argv", command[1:])
        script["main"]()
        return subprocess.CompletedProcess(command, 0)

    # Another process has been started above, and starting them is slow.
    patched = types.SimpleNamespace(run=in_this_process)
    monkeypatch.setitem(script["train_all"].__globals__, "subprocess", patched)
    (row,) = call("--peak-tflops", "1", status=0)
    shown = capfd.readouterr().out
    assert "| 2 / 2 " in shown
    result = training.RunFolder(tmp_path / "s-conv-sgd").result()
    assert row["test_accuracy"] == result["test_accuracy"]
    assert row["nonzeros"] == result["nonzeros"]
    assert row["utilisation"] == pytest.approx(row["flop_per_second"] / 1e12)
    assert row["peak_bytes"] > 2**20


def test_an_unknown_row_lists_the_valid_ones(script, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--rows", "s-foo"])
    with pytest.raises(SystemExit):
        script["main"]()
    assert "s-fc-beta-lasso" in capsys.readouterr().err


@pytest.mark.backend
@pytest.mark.skipif(keras.config.backend() != "jax", reason="one backend without TensorFlow")
def test_it_runs_where_tensorflow_is_absent(tmp_path):
    words = [*SMALL, "--epochs", "1", "--run-dir", str(tmp_path), "--rows", "s-fc-beta-lasso"]
    # As the row's own process: the one that waits for it would not hand the absence on.
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, str(SCRIPT), *words, "--no-table"],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert training.RunFolder(tmp_path / "s-fc-beta-lasso").result()["epochs"] == 1
