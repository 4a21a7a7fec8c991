import runpy
import sys
from pathlib import Path

import pytest

from tfconvbias import models
from tfconvbias.studies import structured_sparsity
from tfconvbias.training import RunFolder, command_line

RECIPE = Path(__file__).parents[3] / "recipes" / "structured_sparsity_depth.py"


def _layer(name, kind, kept):
    return {"name": name, "kind": kind, "kept_kernels": kept}


def test_what_the_study_fixes_is_no_option(capsys):
    config = structured_sparsity.DepthConfig()
    given = ["--alphas", "0.5", "--max-minutes", "2", "--run-dir", "there"]
    config = command_line.parse(config, argv=given)
    for name, residual in (("residual", True), ("plain", False)):
        sweep = config.sweep_of(name)
        assert (sweep.residual, sweep.uniform_widths, sweep.random_widths) == (residual, (), 0)
        assert (sweep.alphas, sweep.run_dir) == ((0.5,), f"there/{name}")
    for option in ("--no-residual", "--random-widths=1", "--uniform-widths=0.5"):
        with pytest.raises(SystemExit, match="2"):
            command_line.parse(config, argv=[option])
        assert "unrecognized arguments" in capsys.readouterr().err


def test_the_table_counts_what_is_left_of_the_convolutions(tmp_path):
    layers = [_layer("conv1", "Conv2D", 8), _layer("conv2", "Conv2D", 0)]
    layers += [_layer("conv3", "Conv2D", 1), _layer("fc", "Dense", 1)]
    row = {
        "kind": "found",
        "alpha": 0.5,
        "tau": 0.0,
        "architecture": layers,
        "vanished": ["conv2"],
        "messages": ["conv3 keeps a kernel"],
        "identity_kernels": 2,
        "test_accuracy": 0.75,
        "test_accuracy_thresholded": 0.5,
        "multiply_adds_ratio": 0.25,
    }
    result = structured_sparsity.SparsityResult(
        structured_sparsity.SparsityConfig(), [{"kind": "base"}, row], {}, RunFolder(tmp_path)
    )
    assert structured_sparsity.depth_table({"plain": result}) == [
        {
            "network": "plain",
            "α": "0.5",
            "τ": "0",
            "convolutions": "3",
            "left": "2",
            "of one kernel": "1",
            "kept by a warning": "1",
            "identity kernels": "2",
            "thresholded, %": "50.00",
            "fine-tuned, %": "75.00",
            "multiply-adds": "25.0 %",
        }
    ]


@pytest.mark.tensorflow
def test_recipe(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(models.BASES, "imagenet8", ((4, 3), (4, 3), (4, 3)))
    monkeypatch.setitem(models.BASE_STRIDES, "imagenet8", (4, 1, 1))
    options = "--width 1 --num-train 50 --num-test 20 --epochs 1 --sparse-epochs 1"
    words = f"--demo --base imagenet8 {options} --fine-tune-epochs 1 --alphas 0.1".split()
    words += ["--batch-size", "50", "--latency-batch", "8", "--run-dir", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", [str(RECIPE), *words, "--verbose", "silent"])
    runpy.run_path(str(RECIPE), run_name="__main__")
    shown = capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for name in ("residual", "plain"):
        assert f"| {name} " in shown
        assert f"{name.capitalize()} network." in page
        assert (tmp_path / "run" / name / "report.html").exists()
