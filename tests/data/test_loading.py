import io
import threading
import urllib.error

import numpy as np
import pytest
from PIL import Image

from tfconvbias.data import DATASET_NAMES, DatasetUnavailableError, load, named


def images(seed, count):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def fake_cifar10(monkeypatch):
    """40 training images of 3 classes with 5, 15 and 20 images, each with a number of its own."""
    x_train = images(0, 40)
    x_train[:, 0, 0, 0] = np.arange(40)
    arrays = {
        "x_train": x_train,
        "y_train": np.repeat([0, 1, 2], [5, 15, 20]).astype(np.int32),
        "x_test": images(1, 6),
        "y_test": np.arange(6, dtype=np.int32) % 3,
        "class_names": ("a", "b", "c"),
        "source": "fake",
    }
    asked = []

    def load_tfds(name, data_dir, *, include_extra):
        asked.append((name, data_dir, include_extra))
        return arrays

    monkeypatch.setattr("tfconvbias.data.loading.load_tfds", load_tfds)
    return asked


def test_split_is_disjoint_complete_and_stratified(fake_cifar10):
    data = load("cifar10", "somewhere", validation_fraction=0.2)
    assert fake_cifar10 == [("cifar10", "somewhere", False)]
    train, validation = data.x_train[:, 0, 0, 0], data.x_validation[:, 0, 0, 0]
    assert sorted([*train, *validation]) == list(range(40))
    assert train.tolist() == sorted(train)
    assert np.bincount(data.y_validation).tolist() == [1, 3, 4]
    assert (np.repeat([0, 1, 2], [5, 15, 20])[validation] == data.y_validation).all()
    assert len(data.x_test) == 6


def test_split_is_fixed_by_its_seed(fake_cifar10):
    first = load("cifar10", validation_fraction=0.2).x_validation[:, 0, 0, 0]
    assert (load("cifar10", validation_fraction=0.2).x_validation[:, 0, 0, 0] == first).all()
    assert first.tolist() == [3, 11, 13, 15, 20, 21, 32, 35]
    other = load("cifar10", validation_fraction=0.2, seed=1).x_validation[:, 0, 0, 0]
    assert (other != first).any()


def test_small_and_empty_validation_splits(fake_cifar10):
    assert np.bincount(load("cifar10", validation_fraction=0.01).y_validation).tolist() == [1] * 3
    assert load("cifar10", validation_fraction=0).x_validation.shape == (0, 32, 32, 3)
    with pytest.raises(ValueError, match=r"Class 'a' has 5 training.*0.95 would leave none"):
        load("cifar10", validation_fraction=0.95)


def test_motifs_validation_comes_on_top():
    data = load("motifs10", validation_fraction=0.2)
    assert [len(data.split(name)[0]) for name in ("train", "validation", "test")] == [
        8000,
        2000,
        2000,
    ]
    assert load("motifs10", validation_fraction=0, seed=1).source.endswith("seed 1")
    data = load("motifs100")
    assert data.num_classes == 100
    assert len(data.x_validation) == 889


def test_resizing_named_sets(fake_cifar10):
    data = load("cifar10", image_size=(16, 8))
    assert data.image_shape == (16, 8, 3)
    original = load("cifar10").x_test[3]
    expected = Image.fromarray(original).resize((8, 16), Image.Resampling.BILINEAR)
    assert (data.x_test[3] == np.asarray(expected)).all()
    assert load("cifar10", image_size=(32, 32)).image_shape == (32, 32, 3)


def test_class_count(fake_cifar10):
    assert load("cifar10", classes=3).num_classes == 3
    with pytest.raises(ValueError, match=r"Expected 10 classes, but 'cifar10' has 3."):
        load("cifar10", classes=10)


def test_extra_reaches_svhn_only(fake_cifar10):
    load("svhn", include_extra=True)
    assert fake_cifar10 == [("svhn", None, True)]
    with pytest.raises(ValueError, match=r"`include_extra` is for svhn only.*'cifar10'"):
        load("cifar10", include_extra=True)


@pytest.mark.parametrize(
    ("name", "near"),
    [("cifar-10", "cifar10"), ("CIFAR100", "cifar100"), ("svnh", "svhn"), ("motif10", "motifs10")],
)
def test_unknown_name_suggests_the_nearest(name, near):
    with pytest.raises(ValueError) as caught:
        load(name)
    assert str(caught.value) == (
        f"There is no data set and no folder {name!r}. Did you mean {near!r}? "
        f"Names: {', '.join(DATASET_NAMES)}; or the path of a folder of images."
    )


def test_unknown_name_without_a_neighbour():
    with pytest.raises(ValueError, match=r"no folder 'xyz'. Names: cifar10, cifar100, svhn"):
        load("xyz")


def test_paths_that_lead_nowhere(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder '.*/none'"):
        load(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"There is no folder './none'|'none'"):
        load("./none")
    (tmp_path / "file.tar").write_text("")
    with pytest.raises(NotADirectoryError, match=r"file\.tar' is a file"):
        load(tmp_path / "file.tar")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation_fraction": 1.0}, r"`validation_fraction` must lie in \[0, 1\).*=1.0"),
        ({"validation_fraction": -0.1}, "Received: validation_fraction=-0.1"),
        ({"seed": -1}, "`seed` must be a whole number at least 0. Received: seed=-1"),
        ({"seed": 1.5}, "Received: seed=1.5"),
        ({"image_size": (0, 3)}, r"`image_size` must be a tuple of 2 values.*\(0, 3\)"),
        ({"image_size": (3,)}, r"Received: image_size=\(3,\)"),
        ({"color_mode": "bgr"}, "`color_mode` must be one of 'rgb', 'grayscale', or None.*'bgr'"),
        ({"color_mode": "rgb"}, "`color_mode` is for folders.*'motifs10', color_mode='rgb'"),
        ({"cache_dir": "x"}, "`cache_dir` is for folders.*'motifs10', cache_dir='x'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        load("motifs10", **arguments)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A tiny CIFAR-10, SVHN and MNIST in the files of TensorFlow Datasets."""
    tfds = pytest.importorskip("tensorflow_datasets")
    import tensorflow as tf

    data_dir = tmp_path_factory.mktemp("tfds")
    labels = {
        "cifar10": {"names": [f"class{index}" for index in range(10)]},
        "svhn_cropped": {"num_classes": 10},
        "mnist": {"num_classes": 10},
    }
    for name, splits in (
        ("cifar10", {"train": 40, "test": 20}),
        ("svhn_cropped", {"train": 20, "test": 10, "extra": 30}),
        ("mnist", {"train": 20, "test": 10}),
    ):
        shape = (28, 28, 1) if name == "mnist" else (32, 32, 3)
        version = str(tfds.builder_cls(name).VERSION)
        label = tfds.features.ClassLabel(**labels[name])
        tfds.dataset_builders.store_as_tfds_dataset(
            name,
            version,
            features=tfds.features.FeaturesDict(
                {"image": tfds.features.Image(shape=shape), "label": label}
                | ({} if name == "mnist" else {"id": tfds.features.Text()})
            ),
            split_datasets={
                split: tf.data.Dataset.from_tensor_slices(
                    {
                        "image": images(count, count)[:, : shape[0], : shape[1], : shape[2]],
                        "label": np.arange(count) % 10,
                    }
                    | ({} if name == "mnist" else {"id": [str(index) for index in range(count)]})
                )
                for split, count in splits.items()
            },
            data_dir=data_dir,
        )
    return data_dir


def test_prepared_tfds_data_needs_no_network(prepared, monkeypatch):
    monkeypatch.setattr(named, "_prepare", None)
    data = load("cifar10", prepared, validation_fraction=0)
    assert data.x_train.shape == (40, 32, 32, 3)
    assert sorted(data.y_train) == sorted(np.arange(40) % 10)
    assert data.class_names[3] == "class3"
    assert data.source.startswith("TensorFlow Datasets cifar10/")
    # TensorFlow Datasets shuffles while it writes: compare as sets.
    stored = {x.tobytes(): label % 10 for label, x in enumerate(images(40, 40))}
    assert {x.tobytes(): y for x, y in zip(data.x_train, data.y_train, strict=True)} == stored
    assert (load("cifar10", prepared, validation_fraction=0).x_train == data.x_train).all()


def test_svhn_with_and_without_extra(prepared):
    assert len(load("svhn", prepared, validation_fraction=0).x_train) == 20
    data = load("svhn", prepared, validation_fraction=0, include_extra=True)
    assert len(data.x_train) == 50
    assert "splits train+extra, test" in data.source


def test_mnist_has_one_channel_and_can_be_resized(prepared, monkeypatch):
    monkeypatch.setattr(named, "_prepare", None)
    data = load("mnist", prepared, validation_fraction=0)
    assert data.x_train.shape == (20, 28, 28, 1)
    assert data.num_classes == 10
    larger = load("mnist", prepared, validation_fraction=0, image_size=(32, 24))
    assert larger.x_test.shape == (10, 32, 24, 1)
    expected = Image.fromarray(data.x_test[4, ..., 0]).resize((24, 32), Image.Resampling.BILINEAR)
    assert (larger.x_test[4, ..., 0] == np.asarray(expected)).all()


def test_without_network_the_error_says_why_and_what_instead(tmp_path, monkeypatch):
    def no_network(request, timeout):
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(DatasetUnavailableError) as caught:
        load("svhn", tmp_path / "empty")
    error = caught.value
    assert error.name == "svhn"
    assert "http://" in error.reason and "cannot be reached" in error.reason
    assert "URLError: <urlopen error no network here>" in str(error)
    assert isinstance(error.__cause__, urllib.error.URLError)
    for alternative in ("--demo", "--dataset PATH", "--data-dir DIR", "svhn_cropped", "motifs10"):
        assert alternative in str(error)
    assert not (tmp_path / "empty").exists()


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    release = threading.Event()

    def silent(request, timeout):
        release.wait(10)
        raise TimeoutError

    monkeypatch.setattr("urllib.request.urlopen", silent)
    monkeypatch.setattr(named, "PROBE_SECONDS", 0.05)
    with pytest.raises(DatasetUnavailableError, match=r"no answer from http"):
        load("cifar10", tmp_path)
    release.set()


@pytest.mark.parametrize("leftover", [None, "archive.tar.gz", "archive.tar.gz.tmp.01"])
def test_a_failing_download_is_named(tmp_path, monkeypatch, leftover):
    tfds = pytest.importorskip("tensorflow_datasets")
    probes = []

    def answers(request, timeout):
        probes.append(request.get_method())
        raise urllib.error.HTTPError(request.full_url, 405, "no HEAD", None, io.BytesIO())

    def fails(self):
        raise OSError("disk full")

    monkeypatch.setattr("urllib.request.urlopen", answers)
    monkeypatch.setattr(tfds.builder_cls("cifar10"), "download_and_prepare", fails)
    if leftover:
        (tmp_path / "downloads" / "cifar10").mkdir(parents=True)
        (tmp_path / "downloads" / "cifar10" / leftover).write_text("")
    with pytest.raises(DatasetUnavailableError, match=r"failed in .*: OSError: disk full\."):
        load("cifar10", tmp_path)
    # With an archive at hand nobody is asked; a half download is none.
    assert probes == ([] if leftover == "archive.tar.gz" else ["HEAD"])
