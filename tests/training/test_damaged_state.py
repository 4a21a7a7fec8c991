"""Run folders that were damaged: the newest whole state is used, or the fault is named."""

import json
import shutil

import keras
import numpy as np
import pytest

from tfconvbias import training

_TRAINED = {}


@pytest.fixture
def stopped(tiny_config, tiny_dataset, tmp_path_factory):
    """A folder with checkpoints of epochs 1 and 2; `go_on` runs epoch 3."""

    class Killed(BaseException):
        pass

    save = training.RunFolder.save_checkpoint

    def kill(folder, model, epoch, num_kept):
        save(folder, model, epoch, num_kept)
        if epoch == 2:
            raise Killed

    if not _TRAINED:
        config = tiny_config.replace(run_dir=str(tmp_path_factory.mktemp("stopped") / "run"))
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            patch.setattr(training.RunFolder, "save_checkpoint", kill)
            training.run(config, tiny_dataset)
        _TRAINED["path"] = config.run_dir
    shutil.copytree(_TRAINED["path"], tiny_config.run_dir)
    folder = training.RunFolder(tiny_config.run_dir)
    names = sorted(file.name for file in folder.path.glob("checkpoint-*"))
    assert names == [f"checkpoint-{n}{end}" for n in (1, 2) for end in (".json", ".weights.h5")]
    return folder


@pytest.fixture
def go_on(tiny_config, tiny_dataset):
    return lambda: training.run(tiny_config.replace(resume=True), tiny_dataset)


def cut(file):
    file.write_bytes(file.read_bytes()[:-100])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def without_seal(file):
    file.with_name("checkpoint-2.json").unlink()


def foreign(file):
    seal = file.with_name("checkpoint-2.json")
    seal.write_text(json.dumps({**json.loads(seal.read_text()), "work": "another"}))


def renumbered(file):
    for end in (".json", ".weights.h5"):
        shutil.copy(file.with_name(f"checkpoint-1{end}"), file.with_name(f"checkpoint-2{end}"))


@pytest.mark.parametrize("damage", [cut, flip, without_seal, foreign, renumbered])
def test_the_checkpoint_before_a_damaged_one_is_used(
    damage, stopped, go_on, tiny_config, tiny_dataset, tmp_path_factory, capsys
):
    file = stopped.path / "checkpoint-2.weights.h5"
    damage(file)
    resumed = go_on()
    message = capsys.readouterr().err
    assert str(file) in message
    assert "Going on from epoch 1." in message
    if "whole" not in _TRAINED:
        run_dir = str(tmp_path_factory.mktemp("whole") / "run")
        _TRAINED["whole"] = training.run(tiny_config.replace(run_dir=run_dir), tiny_dataset)
    whole = _TRAINED["whole"]
    assert resumed.history["loss"] == whole.history["loss"]
    models = [keras.saving.load_model(found.folder.last_model) for found in (whole, resumed)]
    for one, other in zip(*(model.weights for model in models), strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (one, other)))


def test_without_any_whole_checkpoint_the_user_is_told(stopped, go_on):
    for number in (1, 2):
        flip(stopped.path / f"checkpoint-{number}.weights.h5")
    with pytest.raises(training.RunFolderError, match=r"checkpoint-2.* is damaged.*Remove .*run"):
        go_on()


def doubled_row(lines):
    return [*lines, lines[-1]]


def missing_row(lines):
    return [lines[0], *lines[2:]]


def missing_end(lines):
    return lines[:-1]


def torn_row(lines):
    return [*lines[:-1], lines[-1][:9]]


def no_numbers(lines):
    return [*lines[:-1], lines[-1].replace(".", "x")]


@pytest.mark.parametrize("damage", [doubled_row, missing_row, missing_end, torn_row, no_numbers])
def test_a_damaged_history_is_named(damage, stopped, go_on):
    file = stopped.path / "history.csv"
    lines = file.read_text().splitlines()
    assert len(lines) == 3
    file.write_text("\n".join(damage(lines)) + "\n")
    with pytest.raises(training.RunFolderError, match=r"history\.csv (is damaged|ends before)"):
        go_on()


@pytest.mark.parametrize("name", ["config.json", "result.json"])
@pytest.mark.parametrize("content", ["", "{", "\x00\x01"])
def test_a_damaged_json_file_is_named(name, content, stopped, go_on):
    (stopped.path / name).write_text(content)
    with pytest.raises(training.RunFolderError, match=rf"{name} is damaged"):
        go_on()


def test_parts_of_different_studies_do_not_take_each_others_checkpoints(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    for study in ("one", "other"):
        (tmp_path / study).mkdir()
        (tmp_path / study / "config.json").write_text(json.dumps({"study": study}))
    one, other = (training.RunFolder(tmp_path / study).part("base") for study in ("one", "other"))
    one.save_checkpoint(model, 1)
    assert one.checkpoint() == (1, one.path / "checkpoint-1.weights.h5")
    # A study's folder may move.
    (tmp_path / "one").rename(tmp_path / "moved")
    assert training.RunFolder(tmp_path / "moved").part("base").checkpoint()[0] == 1
    shutil.copytree(tmp_path / "moved" / "base", other.path)
    with pytest.raises(training.RunFolderError, match="belongs to another training"):
        other.checkpoint()
