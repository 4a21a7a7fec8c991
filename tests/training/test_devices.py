"""One training on 1, 2 and 4 devices: the same numbers, one checkpoint, clear refusals."""

import dataclasses
import re

import keras
import numpy as np
import pytest

from tfconvbias import models, optimizers, training

# Thresholding at β λ = 0.05 in every step: it leaves a part of the weights.
LASSO = {
    "connectivity": "dense",
    "optimizer": "beta_lasso",
    "l1": 1e-3,
    "l1_conv": 1e-3,
    "beta": 50.0,
    "augment": "none",
    "dropout_rate": 0.0,
}


@pytest.fixture
def run(tiny_config, tiny_dataset, tmp_path):
    def run(name, **changes):
        config = tiny_config.replace(**{**LASSO, "run_dir": str(tmp_path / name), **changes})
        return training.run(config, tiny_dataset)

    return run


def supports(result):
    model = keras.models.load_model(result.folder.last_model)
    return {v.path: np.asarray(v) != 0 for v in model.trainable_variables if "kernel" in v.path}


def assert_same(found, expected):
    for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
        np.testing.assert_allclose(found.history[name], expected.history[name], rtol=1e-4)
    assert found.row["test_loss"] == pytest.approx(expected.row["test_loss"], rel=1e-4)
    masks = supports(found)
    for path, mask in supports(expected).items():
        np.testing.assert_array_equal(masks[path], mask)
        assert not mask.all()
        assert mask.any()


class Killed(BaseException):
    pass


@pytest.mark.slow
@pytest.mark.tensorflow
def test_losses_and_supports_do_not_depend_on_the_number_of_replicas(run, monkeypatch):
    one = run("one")
    assert_same(run("two", strategy="mirrored", num_devices=2), one)

    # Four replicas go on where one stopped, and one where four did.
    save = training.RunFolder.save_checkpoint

    def kill(folder, model, epoch, num_kept):
        save(folder, model, epoch, num_kept)
        if epoch == 1:
            raise Killed

    four = {"strategy": "mirrored", "num_devices": 4}
    for name, first, then in (("grown", {}, four), ("shrunk", four, {})):
        with monkeypatch.context() as patch:
            patch.setattr(training.RunFolder, "save_checkpoint", kill)
            with pytest.raises(Killed):
                run(name, **first)
        assert_same(run(name, **then, resume=True), one)
    places = [training.RunFolder(one.folder.path.parent / name) for name in ("one", "grown")]
    assert [place.environment()["devices"] for place in places] == [
        "none, 1 replica(s)",
        "mirrored, 4 replica(s)",
    ]


@pytest.mark.tensorflow
def test_a_fit_of_ones_own_takes_its_statistics_over_the_global_batch():
    # Sorted, so that the halves of a batch differ; and large enough for the compiled update.
    x = np.sort(np.random.default_rng(0).normal(size=(64, 200)).astype("float32"), axis=0)
    y = (np.arange(64) % 3 == 0).astype("float32")[:, None]
    found = []
    for options in ({}, {"strategy": "mirrored", "num_devices": 2}):
        keras.utils.set_random_seed(0)
        devices = training.distribute(**options)
        with devices.scope():
            model = keras.Sequential(
                [
                    keras.Input((200,)),
                    keras.layers.Dense(400),
                    keras.layers.BatchNormalization(),
                    keras.layers.Dense(1),
                ]
            )
            optimizer = optimizers.BetaLasso(1e-3, l1=1e-4, beta=50, momentum=0.9)
            model.compile(optimizer, "mse", jit_compile=False)
        devices.prepare(model)
        history = model.fit(x, y, batch_size=32, epochs=3, shuffle=False, verbose=0).history
        found.append((history["loss"], *model.get_weights()))
        assert not any(layer.get_config().get("synchronized") for layer in model.layers), (
            "a switch that other backends refuse would be saved"
        )
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-5)


@pytest.mark.tensorflow
def test_replicas_drop_different_units():
    import tensorflow as tf

    devices = training.distribute("mirrored", num_devices=2)
    with devices.scope():
        model = keras.Sequential([keras.Input((50,)), keras.layers.Dropout(0.5, seed=1)])
        model.compile("sgd", "mse")
    devices.prepare(model)
    strategy = model.distribute_strategy
    masks = strategy.run(lambda: model(tf.ones((1, 50)), training=True) > 0)
    first, second = (mask.numpy() for mask in strategy.experimental_local_results(masks))
    alone = keras.layers.Dropout(0.5, seed=1)(np.ones((1, 50), "float32"), training=True)
    np.testing.assert_array_equal(first, np.asarray(alone) > 0)
    assert 10 < np.sum(first != second) < 40


@pytest.mark.parametrize("num", [30, 1000, 1001, 1003, 2002])
def test_no_replica_is_left_without_an_image(num):
    devices = training.Devices()
    devices.num_replicas = 4
    _, size = devices.evaluation((np.zeros(num), np.zeros(num)))
    batches = [min(size, num - start) for start in range(0, num, size)]
    assert sum(batches) == num
    assert batches[0] % 4 == 0
    for batch in batches:
        parts = [len(range(batch)[k * -(-batch // 4) :][: -(-batch // 4)]) for k in range(4)]
        assert min(parts) > 0


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "data_parallel"}, "on the jax backend only; on tensorflow it would"),
        ({"strategy": "model_parallel"}, "use mirrored"),
        ({"strategy": "mirrored", "num_devices": 9}, "There are 4 devices here"),
        ({"strategy": "mirrored", "batch_size": 30}, "multiple of the 4 replicas"),
        ({"strategy": "mirrored", "device_epochs": "on"}, "holds the images on one device"),
        ({"strategy": "mirrored", "jit_compile": "on"}, "does not run inside of XLA"),
        ({"num_shards": 2}, "num_shards is for strategy='model_parallel'"),
        ({"strategy": "replicated"}, "strategy` must be one of 'none', 'mirrored'"),
    ],
)
def test_what_would_not_spread_the_run_is_refused(changes, message, run):
    with pytest.raises(training.ConfigError, match=message):
        run("run", **changes)


@pytest.mark.tensorflow
def test_a_model_that_would_train_on_one_device_is_refused():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    devices = training.distribute("mirrored", num_devices=2)
    with pytest.raises(training.ConfigError, match="built inside of `scope"):
        devices.prepare(model)
    with devices.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(global_clipnorm=1.0), "mse")
    with pytest.raises(training.ConfigError, match="global_clipnorm"):
        devices.prepare(model)


@pytest.mark.parametrize(
    ("family", "build", "arguments"),
    [
        ("s", models.SConv, {"base_channels": 4, "connectivity": "dense"}),
        ("d", models.DConv, {"base_channels": 1, "connectivity": "dense"}),
        ("three_fc", models.ThreeFC, {"hidden_units": 8}),
        ("resnet18", models.ResNet18, {"base_channels": 2, "connectivity": "dense"}),
    ],
)
def test_all_dense_kernels_but_the_classifiers_are_cut(family, build, arguments):
    layout = training.LAYOUTS[family]
    model = build(**arguments, input_shape=(8, 8, 3))
    *kernels, classifier = [v for v in model.weights if v.path.endswith("/kernel")]
    for kernel in kernels:
        cuts = [axes for pattern, axes in layout.items() if re.search(pattern, kernel.path)]
        assert len(cuts) == 1, kernel.path
        assert sorted(cuts[0], key=str) == [None, "model"]
    assert not any(re.search(pattern, classifier.path) for pattern in layout)


def test_the_strategy_does_not_decide_the_result(tiny_config):
    spread = dataclasses.replace(tiny_config, strategy="mirrored", num_devices=4)
    assert spread.identity() == tiny_config.identity()


def devices_of(num_replicas, num_processes, process=0):
    """What a process of several knows, without the others."""
    pytest.importorskip("jax")
    from tfconvbias.training.jax_devices import DataParallel

    devices = object.__new__(DataParallel)
    devices.num_replicas, devices.num_processes, devices.process = (
        num_replicas,
        num_processes,
        process,
    )
    return devices


@pytest.mark.parametrize("num", [24, 25, 1001])
@pytest.mark.parametrize(("num_replicas", "num_processes"), [(2, 2), (4, 2), (3, 3)])
def test_every_image_counts_equally_often_in_all_processes(num, num_replicas, num_processes):
    images = np.arange(num)
    seen = []
    for process in range(num_processes):
        devices = devices_of(num_replicas, num_processes, process)
        (own, _), size = devices.evaluation((images, images))
        assert size > 0
        seen.append(own)
    counts = np.bincount(np.concatenate(seen), minlength=num)
    assert counts.min() == counts.max() > 0


def test_a_lost_process_is_told_from_other_errors():
    gone = "UNKNOWN: Gloo AllGather failed: Read error: Connection reset by peer"
    with (
        pytest.raises(training.LostProcessError, match="has ended or cannot be reached"),
        devices_of(2, 2).joined(),
    ):
        raise ValueError(gone)
    for devices, error in (
        (devices_of(2, 1), ValueError(gone)),
        (devices_of(2, 2), ValueError("shapes differ")),
        (devices_of(2, 2), training.RunFolderError("UNAVAILABLE")),
    ):
        with pytest.raises(type(error)) as caught, devices.joined():
            raise error
        assert caught.value is error


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("127.0.0.1:1", "2"), "need KERAS_DISTRIBUTION_JOB_ADDRESSES=HOST:PORT"),
        (("127.0.0.1:1", "2", "2"), "which is 0 to N - 1"),
        (("127.0.0.1:1", "2", "0"), "each would train for itself"),
    ],
)
def test_processes_that_would_not_train_together_are_refused(given, message, run, monkeypatch):
    names = ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
    for name, value in zip(names, given, strict=False):
        monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
    with pytest.raises(training.ConfigError, match=message):
        run("together")
