"""The one training loop: what it measures, in which order, and where it goes on."""

import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest

from tfconvbias import callbacks, training

OPTIONS = {"epochs": 3, "batch_size": 32, "seed": 0}
QUIET = training.Execution(checkpoint_every=1, verbose="silent")


@pytest.fixture
def compiled(tiny_config, tiny_dataset):
    def build():
        keras.utils.set_random_seed(0)
        model = training.build_model(tiny_config, tiny_dataset)
        training.compile_classifier(model, keras.optimizers.SGD(0.05, momentum=0.9))
        return model

    return build


def accuracy(model, images, labels):
    return np.mean(keras.ops.convert_to_numpy(model(images)).argmax(-1) == labels)


def fit(model, dataset, folder, **options):
    return training.fit(
        model, dataset, training.RunFolder(folder), **{"execution": QUIET, **OPTIONS, **options}
    )


@pytest.mark.parametrize(("split", "prefix"), [("validation", "val_"), ("test", "test_")])
def test_columns_say_which_images_were_measured(split, prefix, compiled, tiny_dataset, tmp_path):
    model = compiled()
    history = fit(model, tiny_dataset, tmp_path, measured_on=split)
    measured = {name for name in history if name.endswith("accuracy")}
    assert measured == {"accuracy", f"{prefix}accuracy"}
    expected = accuracy(model, *tiny_dataset.split(split))
    assert history[f"{prefix}accuracy"][-1] == pytest.approx(expected)


def test_the_row_of_epoch_0_is_measured_before_the_first_step(compiled, tiny_dataset, tmp_path):
    class Steps(callbacks.Measurement):
        names = ("steps",)

        def measure(self, logs):
            return {"steps": float(keras.ops.convert_to_numpy(self.model.optimizer.iterations))}

    history = fit(
        compiled(),
        tiny_dataset,
        tmp_path,
        measure_start=True,
        measured_on="test",
        watchers=[Steps()],
    )
    assert history["epoch"] == [0, 1, 2, 3]
    assert history["steps"] == [0, 3, 6, 9]
    untrained = compiled()
    assert history["accuracy"][0] == pytest.approx(
        accuracy(untrained, *tiny_dataset.split("train"))
    )
    assert history["test_accuracy"][0] == pytest.approx(
        accuracy(untrained, *tiny_dataset.split("test"))
    )


def test_a_killed_training_goes_on_from_its_checkpoint(
    compiled, tiny_dataset, tmp_path, monkeypatch
):
    whole = fit(compiled(), tiny_dataset, tmp_path / "whole", measure_start=True)

    class Killed(BaseException):
        pass

    def kill(folder, model, epoch, num_kept):
        save(folder, model, epoch, num_kept)
        if epoch == 2:
            raise Killed

    save = training.RunFolder.save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(training.RunFolder, "save_checkpoint", kill)
        with pytest.raises(Killed):
            fit(compiled(), tiny_dataset, tmp_path / "killed", measure_start=True)
    resumed = fit(compiled(), tiny_dataset, tmp_path / "killed", measure_start=True)
    for name in ("epoch", "loss", "val_loss", "accuracy"):
        assert resumed[name] == whole[name]


def test_without_shuffling_all_epochs_have_the_images_order(tiny_dataset):
    batches = training.ShuffledBatches(
        tiny_dataset.x_train, tiny_dataset.y_train, 40, seed=3, shuffle=False
    )
    for epoch in (0, 5):
        np.testing.assert_array_equal(batches.order(epoch).ravel(), np.arange(80))


def test_a_loss_that_only_the_measured_images_show_is_no_good_epoch(
    compiled, tiny_dataset, tmp_path
):
    class Poison(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            if self.params.get("epochs") and len(training.RunFolder(tmp_path).history()) > 0:
                bias = self.model.get_layer("fc2").bias
                bias.assign(np.full(bias.shape, np.nan))

    with pytest.raises(training.TrainingDivergedError, match="epoch 2"):
        fit(compiled(), tiny_dataset, tmp_path, watchers=[Poison()])
    assert training.RunFolder(tmp_path).history()["epoch"] == [1]
    assert training.RunFolder(tmp_path).checkpoint()[0] == 1


def test_a_split_without_images_is_an_error(compiled, tiny_dataset, tmp_path):
    x, y = tiny_dataset.split("validation")
    empty = dataclasses.replace(tiny_dataset, x_validation=x[:0], y_validation=y[:0])
    with pytest.raises(training.ConfigError, match="no validation images"):
        fit(compiled(), empty, tmp_path)


def test_a_folder_of_images_may_move_but_not_change(tiny_config, tiny_dataset, tmp_path):
    config = tiny_config.replace(dataset="/here/pictures", epochs=1)
    training.run(config, tiny_dataset)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    moved = config.replace(
        dataset="/there/pictures", run_dir=str(tmp_path / "elsewhere"), resume=True
    )
    assert training.run(moved, tiny_dataset).row["epochs"] == 1
    other = dataclasses.replace(tiny_dataset, y_train=(tiny_dataset.y_train + 1) % 3)
    with pytest.raises(training.RunFolderError, match=r"images: 'tiny .* there, 'tiny"):
        training.run(moved, other)


def test_what_a_kill_left_before_the_claim_is_no_work_of_somebody(
    tiny_config, tiny_dataset, tmp_path
):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "unfinished-config.json").write_text("{")
    assert training.run(tiny_config.replace(epochs=1), tiny_dataset).row["epochs"] == 1


HOLDER = """
import sys
from tfconvbias import training
with training.RunFolder(sys.argv[1]).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_train_in_one_folder(compiled, tiny_dataset, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(training.RunFolderError, match="Another process is at work in"):
            fit(compiled(), tiny_dataset, tmp_path)
        assert training.RunFolder(tmp_path).history() == {}
        # A process that is killed holds nothing any more.
        holder.kill()
        holder.wait()
        assert fit(compiled(), tiny_dataset, tmp_path)["epoch"] == [1, 2, 3]
