import json
import runpy
import shlex
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parent.parent.parent / "recipes"


def run_recipe(monkeypatch, name, *argv):
    path = str(RECIPES / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [path, *argv])
    runpy.run_path(path, run_name="__main__")


def test_tune_prints_a_command_that_trains_the_best(monkeypatch, tmp_path, capsys):
    folder = str(tmp_path / "search")
    argv = ["--demo", "--epochs", "1", "--num-train", "256", "--run-dir", folder]
    run_recipe(monkeypatch, "tune", *argv, "--l1-values", "1e-4", "--verbose", "silent")
    output = capsys.readouterr().out
    assert output.count("completed") == 2
    *_, line, page = output.splitlines()
    assert page.startswith("Report: ")
    command = shlex.split(line)
    assert command[:2] == ["python", "recipes/train.py"]
    more = ["--run-dir", str(tmp_path / "run"), "--no-tensorboard", "--verbose", "silent"]
    run_recipe(monkeypatch, "train", *command[2:], *more)
    row = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (row["model"], row["optimizer"], row["epochs"]) == ("s_fc", "beta_lasso", 1)

    with pytest.raises(SystemExit) as stop:
        run_recipe(monkeypatch, "tune", *argv, "--l1-values", "1e-3")
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert "holds a search with another configuration" in message
    assert "l1_values" in message


def test_search_augmentation_prints_a_command_that_trains(monkeypatch, tmp_path, capsys):
    folder = str(tmp_path / "search")
    argv = ["--demo", "--epochs", "1", "--num-train", "300", "--run-dir", folder]
    small = ["--num-candidates", "3", "--num-kept", "1", "--num-rounds", "1"]
    run_recipe(monkeypatch, "search_augmentation", *argv, *small, "--verbose", "silent")
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[:3] == ["python", "recipes/train.py", "--augment"]
    more = ["--demo", "--epochs", "1", "--num-train", "256", "--no-tensorboard"]
    more += ["--run-dir", str(tmp_path / "run"), "--verbose", "silent"]
    run_recipe(monkeypatch, "train", *command[2:], *more)
    assert (tmp_path / "run" / "result.json").exists()


def test_a_policy_that_cannot_be_read_is_a_message(monkeypatch, tmp_path, capsys):
    file = tmp_path / "policy.json"
    file.write_text('[[["Wobble", 1, 1]]]')
    argv = ["--demo", "--augment", str(file), "--run-dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stop:
        run_recipe(monkeypatch, "train", *argv)
    assert stop.value.code == 1
    assert "must name one of the operations" in capsys.readouterr().err
