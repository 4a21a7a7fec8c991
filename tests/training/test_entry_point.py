"""One entry point for all recipes."""

import dataclasses
import errno
import io
import os
import signal
import sys
from pathlib import Path

import keras
import pytest

from tfconvbias import data, training


@dataclasses.dataclass(frozen=True)
class _Config(training.Config):
    steps: int = training.option(5, "how many")

    def __post_init__(self):
        if self.steps < 1:
            raise training.ConfigError(f"steps={self.steps}")


def test_options_and_demo_reach_the_run():
    seen = []
    for argv in ([], ["--demo"], ["--steps", "7"]):
        training.main(_Config(), seen.append, description="text", demo={"steps": 2}, argv=argv)
    assert seen == [_Config(5), _Config(2), _Config(7)]


def test_errors_that_the_user_can_mend_end_as_a_message(capsys):
    with pytest.raises(SystemExit) as exit_info:
        training.main(_Config(), print, description="text", demo={}, argv=["--steps", "0"])
    assert exit_info.value.code == 2

    def diverge(config):
        raise training.TrainingDivergedError("the loss is nan")

    with pytest.raises(SystemExit) as exit_info:
        training.main(_Config(), diverge, description="text", demo={}, argv=[])
    assert exit_info.value.code == 1
    assert "error: the loss is nan" in capsys.readouterr().err


def status_of(work, monkeypatch, argv=("recipe.py", "--epochs", "3")):
    monkeypatch.setattr(sys, "argv", list(argv))
    with pytest.raises(SystemExit) as exit_info:
        training.guarded(work)
    return exit_info.value.code


def test_an_interrupted_command_says_how_to_go_on(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    argv = ("recipe.py", "--run-dir", "a folder", "--resume")
    assert status_of(interrupt, monkeypatch, argv) == 130
    assert "python recipe.py --run-dir 'a folder' --resume\n" in capsys.readouterr().err


def test_termination_is_a_time_that_is_over_and_the_second_one_an_interruption(monkeypatch, capsys):
    seen = []

    def work():
        deadline = training.Deadline(None)
        seen.append(deadline.is_over())
        os.kill(os.getpid(), signal.SIGTERM)
        seen.append(deadline.is_over())
        deadline.pause_before("The next row")

    handler = signal.getsignal(signal.SIGTERM)
    assert status_of(work, monkeypatch) == training.PAUSED_STATUS
    printed = capsys.readouterr()
    assert "The next row is still to run, but the process was asked to end." in printed.out
    assert "python recipe.py --epochs 3 --resume\n" in printed.out
    assert "finished and stored first" in printed.err

    def stubborn():
        seen.append(training.Deadline(None).is_over())
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        seen.append("unreachable")

    assert status_of(stubborn, monkeypatch) == 130
    assert seen == [False, True, False]
    assert signal.getsignal(signal.SIGTERM) is handler


def full_disk():
    raise OSError(errno.ENOSPC, "No space left on device", "results.csv")


def hdf5_on_a_full_disk():
    raise RuntimeError("Can't decrement id ref count (unable to close file, errno = 28, error)")


@pytest.mark.parametrize("write", [full_disk, hdf5_on_a_full_disk])
def test_a_full_disk_is_one_line_and_leaves_what_was_there(write, tmp_path, monkeypatch, capsys):
    file = tmp_path / "result.json"
    training.write_text(file, "before")

    def work():
        with training.replacing(file) as unfinished:
            unfinished.write_text("a part of")
            write()

    assert status_of(work, monkeypatch) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file} cannot be written (No space left on device). ")
    assert "--resume continues" in line
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


class _KilledWhileSaving(keras.Model):
    def save(self, file):
        Path(file).write_text("a part of")
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["model", "json", "rows"])
def test_what_stood_there_stays_when_a_writer_is_killed(kind, tmp_path, monkeypatch):
    file = tmp_path / f"file.{kind}"
    file.write_text("before")
    write_text = Path.write_text

    def killed(path, text, *args, **kwargs):
        write_text(path, text[: len(text) // 2])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        if kind == "model":
            training.RunFolder(tmp_path).save_model(_KilledWhileSaving(), file)
        monkeypatch.setattr(Path, "write_text", killed)
        if kind == "json":
            training.write_json(file, {"accuracy": 0.5})
        training.write_rows(file, [{"epoch": 1, "accuracy": 0.5}])
    monkeypatch.undo()
    assert file.read_text() == "before"


def test_errors_of_writers_that_are_ours_keep_their_traceback(tmp_path):
    with (
        pytest.raises(RuntimeError, match="a bug"),
        training.replacing(tmp_path / "result.json") as unfinished,
    ):
        unfinished.write_text("a part of")
        raise RuntimeError("a bug")
    with pytest.raises(ZeroDivisionError):
        training.guarded(lambda: 1 / 0)


def test_an_error_of_other_writers_is_one_line_too(monkeypatch, capsys):
    assert status_of(full_disk, monkeypatch) == 1
    assert "error: results.csv cannot be written (No space left" in capsys.readouterr().err


def test_an_image_that_cannot_be_read_is_one_line(capsys):
    def work():
        raise data.ImageFolderError("'3.png' is corrupt.")

    with pytest.raises(SystemExit) as exit_info:
        training.guarded(work)
    assert exit_info.value.code == 1
    assert capsys.readouterr().err == "error: '3.png' is corrupt.\n"
    with pytest.raises(ValueError, match="a bug"):
        training.guarded(lambda: int("a bug"))


def test_a_file_that_is_not_there_is_not_called_unwritable(tmp_path):
    with pytest.raises(FileNotFoundError):
        training.guarded((tmp_path / "absent").read_text)


@pytest.mark.parametrize("place", ["a-file/run", "x" * 300])
def test_folders_that_cannot_be_made_are_one_line(place, tmp_path, monkeypatch, capsys):
    (tmp_path / "a-file").write_text("")

    def work():
        with training.RunFolder(tmp_path / place).locked():
            pass

    assert status_of(work, monkeypatch) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line
    assert "Choose another --run-dir." in line


def test_names_that_are_no_text_are_printed_all_the_same(monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    training.guarded(lambda: print("β of class \udcff"))
    shown.seek(0)
    assert shown.buffer.read() == b"\\u03b2 of class \\udcff\n"
