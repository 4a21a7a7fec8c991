"""`tcb`: names, folders, and what a wrong one is answered with."""

import json
import subprocess
import sys

import pytest

from tfconvbias.commands import main, pages
from tfconvbias.commands.pages import labels
from tfconvbias.commands.recipe_files import recipe_files
from tfconvbias.training import RunConfig, RunFolder, RunFolderError, command_line, read_json


def failed(capsys, *argv, status=1):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == status
    return capsys.readouterr().err


def test_recipes_are_listed_with_their_first_sentence(capsys):
    main(["list", "recipes"])
    shown = capsys.readouterr().out
    assert "sconv_cifar100" in shown
    assert "S-CONV on CIFAR-100 with SGD: Neyshabur 2020, Table 1." in shown


def test_models_and_presets_are_listed_without_what_is_neither(capsys):
    main(["list", "models", "presets"])
    models_part, presets_part = capsys.readouterr().out.strip().split("\n\n")
    builders = {line.split()[0] for line in models_part.splitlines()[1:]}
    assert {"SConv", "ResNet18", "VanillaCNN"} <= builders
    assert not builders & {"PresetCard", "ModelFamily", "HalfMeanSquaredError", "PresetError"}
    (line,) = [part for part in presets_part.splitlines() if "s_fc_beta_lasso_motifs10" in part]
    assert "S-FC trained with β-LASSO" in line and "% of the test images right" in line


def test_runs_are_listed_as_far_as_they_came(capsys, tmp_path):
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({}))
    (folder / "history.csv").write_text("epoch,loss\n1,2.0\n2,1.5\n")
    main(["list", "runs", "--folder", str(tmp_path)])
    assert "after epoch 2" in capsys.readouterr().out


def test_a_damaged_run_hides_no_other(capsys, tmp_path):
    for name in ("cut", "whole"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "cut" / "result.json").write_text('{"a"')
    main(["list", "runs", "--folder", str(tmp_path)])
    *_, cut, whole = capsys.readouterr().out.strip().splitlines()
    assert "cut" in cut and cut.endswith("damaged")
    assert "whole" in whole and whole.endswith("after epoch 0")


def test_a_damaged_run_keeps_no_other_from_its_page(capsys, tmp_path, monkeypatch):
    row = {"model": "s_fc", "optimizer": "sgd", "kernel_parameters": {}}
    for name in ("a-cut", "b-whole", "c-lost", "d-whole"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "result.json").write_text(json.dumps(row))
    (tmp_path / "a-cut" / "result.json").write_text('{"a"')
    monkeypatch.setattr(RunFolder, "result", lambda run: read_json(run.path / "result.json"))
    monkeypatch.setattr(pages, "command_of", lambda run: "")

    def write(runs, path, title, command):
        if path.parent.name == "c-lost":
            raise RunFolderError("c-lost/last.keras is missing.")
        return path

    monkeypatch.setattr(pages, "write_report", write)
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path)])
    assert stop.value.code == 1
    shown = capsys.readouterr()
    written = [line.split("/")[-2] for line in shown.out.splitlines() if "Report:" in line]
    assert written == ["b-whole", "d-whole"]
    assert "2 of 4 runs have no page" in shown.err
    assert "a-cut/result.json is damaged" in shown.err and "c-lost/last.keras" in shown.err


def test_a_file_is_no_folder(capsys, tmp_path):
    (tmp_path / "page.html").write_text("")
    for words in (["report"], ["compare"], ["list", "runs", "--folder"]):
        told = failed(capsys, *words, str(tmp_path / "page.html"))
        assert told.strip().endswith("page.html' is a file, not a folder.")
    assert "There is no folder ''." in failed(capsys, "report", "")


def test_a_bad_option_is_told_in_a_line_of_its_own(capsys):
    parser = command_line.parser(RunConfig())
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--epochs", "banana"])
    usage, told = capsys.readouterr().err.strip().splitlines()
    assert usage.startswith("usage:") and "--epochs: invalid int value: 'banana'" in told


def test_a_near_name_is_offered(capsys, tmp_path):
    assert "Did you mean 'table1'?" in failed(capsys, "run", "tabel1", "--demo")
    assert "Did you mean 'core'?" in failed(capsys, "requirements", "cores")
    (tmp_path / "first").mkdir()
    assert f"Did you mean '{tmp_path / 'first'}'?" in failed(
        capsys, "report", str(tmp_path / "frist")
    )


def test_folders_without_finished_runs_are_told(capsys, tmp_path):
    assert "it holds no run" in failed(capsys, "compare", str(tmp_path), str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert "not finished" in failed(capsys, "report", str(tmp_path))
    assert "There is no folder" in failed(capsys, "list", "runs", "--folder", "/nowhere")


def test_options_that_do_not_exist_leave_with_status_2(capsys):
    assert "there is no topic 'recipe'" in failed(capsys, "list", "recipe", status=2)


def test_labels_are_as_long_as_needed(tmp_path):
    assert labels([tmp_path / "a" / "x", tmp_path / "b" / "x"]) == ["a/x", "b/x"]
    assert labels([tmp_path / "a" / "x", tmp_path / "b" / "y"]) == ["x", "y"]


def test_every_recipe_is_found():
    assert {"train", "tune", "table1", "sconv_cifar100"} <= recipe_files().keys()


def test_requirements_are_told_before_any_is_installed():
    """Without TensorFlow it is the second command, after `pip install --no-deps`."""
    bare = (
        "import sys\n"
        "class Only:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.partition('.')[0]\n"
        "        if top != 'tfconvbias' and top not in sys.stdlib_module_names:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Only())\n"
        "from tfconvbias.commands import main\n"
        "main(sys.argv[1:])\n"
    )

    def shown(*argv):
        command = [sys.executable, "-c", bare, *argv]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    lines = shown("requirements", "core", "jax").stdout.splitlines()
    assert [line for line in lines if line.startswith("keras>")]
    assert lines[-1].startswith("jax>")
    other = shown("list")
    assert other.returncode == 1
    assert "pip install $(tcb requirements core jax)" in other.stderr
    assert "Traceback" not in other.stderr
