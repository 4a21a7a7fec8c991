"""Runs on loaders of the user's own: they give the batches, the run does everything else."""

import dataclasses

import keras
import numpy as np
import pytest

from tfconvbias import data, training

pytestmark = pytest.mark.backend


class Batches(keras.utils.PyDataset):
    """The images in their own order, in batches of 32."""

    def __init__(self, x, y, order=None):
        super().__init__()
        self.x, self.y = x, y
        self.order = np.arange(len(x)) if order is None else order

    def __len__(self):
        return -(-len(self.x) // 32)

    def __getitem__(self, index):
        rows = self.order[32 * index : 32 * (index + 1)]
        return self.x[rows], self.y[rows]


def as_py_dataset(x, y):
    return Batches(x, y)


def as_tf_data(x, y):
    tensorflow = pytest.importorskip("tensorflow")
    return tensorflow.data.Dataset.from_tensor_slices((x, y)).batch(32)


def as_torch(x, y):
    torch = pytest.importorskip("torch")
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    return torch.utils.data.DataLoader(pairs, batch_size=32)


def loaders_of(dataset, make=as_py_dataset, **changes):
    parts = {name: make(*dataset.split(name)) for name in ("train", "validation", "test")}
    fields = {
        "image_shape": (8, 8, 3),
        "class_names": dataset.class_names,
        "statistics": dataset.channel_statistics,
    }
    return data.Loaders("tiny", **{**parts, **fields, **changes})


def without_seconds(history):
    return {name: column for name, column in history.items() if "seconds" not in name}


@pytest.fixture
def config(tiny_config):
    return tiny_config.replace(epochs=2)


def test_loaders_train_as_their_images_would(config, tiny_dataset, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:  # the images' own order, as a run on arrays never has it
        patch.setattr(
            training.ShuffledBatches, "order", lambda self, epoch: np.arange(96).reshape(3, 32)
        )
        arrays = training.run(config.replace(run_dir=str(tmp_path / "arrays")), tiny_dataset)
    for make in (as_py_dataset, as_tf_data, as_torch):
        run_dir = str(tmp_path / make.__name__)
        found = training.run(config.replace(run_dir=run_dir), loaders_of(tiny_dataset, make))
        for name, column in without_seconds(arrays.history).items():
            assert found.history[name] == pytest.approx(column, rel=1e-5, abs=1e-6), (make, name)
        for name in ("test_accuracy", "best_epoch", "num_train", "dataset", "batch_size"):
            assert found.row[name] == arrays.row[name], (make, name)
        assert found.folder.best_model.exists()
    page = training.write_report({"tiny": found.folder}, found.folder.path / "r.html", "tiny")
    assert page.exists()


@pytest.mark.tensorflow
def test_a_loader_of_the_epoch_resumes_exactly(config, tiny_dataset, tmp_path):
    def train(epoch):
        order = np.random.default_rng(epoch).permutation(96)
        return Batches(*tiny_dataset.split("train"), order)

    loaders = loaders_of(tiny_dataset, train=train)
    whole = training.run(config, loaders)
    part = config.replace(run_dir=str(tmp_path / "part"), max_minutes=1e-6)
    with pytest.raises(training.RunPausedError, match="epoch 1 of 2"):
        training.run(part, loaders)
    rest = training.run(part.replace(resume=True, max_minutes=None), loaders)
    assert without_seconds(rest.history) == without_seconds(whole.history)
    # The orders do differ: without, the second epoch would not tell.
    batches = [next(loaders.stream(epoch))[1].tolist() for epoch in (0, 1)]
    assert batches[0] != batches[1]


@pytest.mark.tensorflow
def test_endless_batches_are_cut_into_epochs(config, tiny_dataset):
    endless = as_tf_data(*tiny_dataset.split("train")).repeat()
    with pytest.raises(ValueError, match="`steps_per_epoch` must be given"):
        loaders_of(tiny_dataset, train=endless)
    found = training.run(config, loaders_of(tiny_dataset, train=endless, steps_per_epoch=2))
    assert found.row["num_train"] == 64
    # A cosine over 2 · 2 steps.
    assert found.history["learning_rate"] == pytest.approx([0.05, 0.0], abs=1e-7)
    with pytest.raises(ValueError, match="`test` must end"):
        loaders_of(tiny_dataset, test=endless)


@pytest.mark.tensorflow
def test_floats_reach_the_network_as_they_are(config, tiny_dataset):
    def floats(x, y):
        return Batches(((x / 255 - 0.5) / 0.25).astype("float32"), y)

    loaders = loaders_of(tiny_dataset, floats, statistics=None)
    with pytest.raises(training.ConfigError, match="give the loaders `statistics`"):
        training.run(config, loaders)
    found = training.run(config.replace(augment="none"), loaders)
    model = keras.saving.load_model(found.folder.last_model)
    assert not [layer for layer in model.layers if isinstance(layer, data.Preprocessing)]
    x, y = tiny_dataset.split("test")
    logits = keras.ops.convert_to_numpy(model(((x / 255 - 0.5) / 0.25).astype("float32")))
    assert found.row["test_accuracy"] == pytest.approx(np.mean(logits.argmax(-1) == y))


@pytest.mark.tensorflow
def test_what_does_not_fit_a_loader(config, tiny_dataset):
    loaders = loaders_of(tiny_dataset)
    for changes, message in (
        ({"num_train": 20, "train_on_all": True}, "num_train, train_on_all: loaders decide"),
        ({"image_size": 4}, "image_size: loaders decide"),
        ({"stream": "on"}, "stream: loaders decide"),
        ({"batch_size": 16}, "hold 32 images, but batch_size is 16"),
        ({"device_epochs": "on"}, "device_epochs='on' holds the images on the device"),
        ({"strategy": "mirrored", "num_devices": 2}, "Loaders are for one device"),
    ):
        with pytest.raises(training.ConfigError, match=message):
            training.run(config.replace(**changes), loaders)
    x, y = tiny_dataset.split("validation")
    for images, labels, message in (
        (x.transpose(0, 3, 1, 2), y, "channels come last"),
        (x.astype("float32"), y, "must be uint8 images, since `statistics` is given"),
        (x, np.eye(3)[y], "must be integers of shape"),
    ):
        with pytest.raises(training.ConfigError, match=message):
            training.run(config, dataclasses.replace(loaders, validation=Batches(images, labels)))
    for changes, message in (({"test": None}, "no test"), ({"validation": None}, "no validation")):
        with pytest.raises(training.ConfigError, match=message):
            training.run(config, dataclasses.replace(loaders, **changes))
    with pytest.raises(ValueError, match="which can be iterated again"):
        loaders_of(tiny_dataset, validation=iter([(x, y)]))


@pytest.mark.tensorflow
def test_epochs_of_unequal_length_are_an_error(config, tiny_dataset):
    x, y = tiny_dataset.split("train")
    loaders = loaders_of(tiny_dataset, train=lambda e: Batches(x[: 96 - 40 * e], y[: 96 - 40 * e]))
    with pytest.raises(training.ConfigError, match="Epoch 1 of tiny has 2 training batches"):
        training.run(config, loaders)


@pytest.mark.tensorflow
def test_other_data_are_not_continued(config, tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config.replace(epochs=1, run_dir=None, dataset="cifar10")
    found = training.run(config, loaders_of(tiny_dataset))
    assert found.folder.path.name.startswith("s_conv2-tiny-sgd")
    again = config.replace(resume=True)
    assert training.run(again, loaders_of(tiny_dataset)).row["epochs"] == 1
    with pytest.raises(training.RunFolderError, match="images: 'tiny"):
        training.run(again, loaders_of(tiny_dataset, version="of today"))
