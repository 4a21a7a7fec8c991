"""A certified run against the same run without the callback."""

import dataclasses

import keras
import numpy as np
import pytest
from certified_runs import (
    BACKEND,
    BATCH,
    COMPILED,
    STEPS,
    Kernels,
    always,
    examples,
    lasso,
    mlp,
    train,
    twice_called,
)
from keras import layers, ops

from tfconvbias.callbacks import CertifiedSparsity, LayerEpoch, certified_sparsity

# On PyTorch, Keras multiplies matrices of float64 in float32: the dense run is the less exact one.
EXACT = 1e-5 if BACKEND == "torch" else 1e-12
# A run compiles for seconds on JAX, and these settings are NumPy's work on every backend.
_NOT_ON_JAX = pytest.mark.skipif(BACKEND == "jax", reason="the same as on another backend")


@pytest.fixture(autouse=True, scope="module")
def _float64_on_jax():
    if BACKEND != "jax":
        yield
        return
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def _check_equal(build, dtype="float64", tolerance=EXACT, **changes):
    """Weights after each epoch and the whole history agree; returns what came back."""
    sparsity = always()
    dense, expected, dense_history = train(build, None, dtype, **changes)
    sparse, found, history = train(build, sparsity, dtype, **changes)
    for before, after in zip(expected, found, strict=True):
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one != 0, other != 0)
            np.testing.assert_allclose(other, one, atol=tolerance)
    for name, values in dense_history.items():
        np.testing.assert_allclose(history[name], values, atol=max(tolerance, 1e-6), err_msg=name)
    assert int(sparse.optimizer.iterations) == int(dense.optimizer.iterations)
    return sum(done.returned for done in sparsity.report)


@pytest.mark.parametrize(
    ("changes", "least", "most"),
    [
        ({"beta": 40.0, "epochs": 12}, 0, 0),
        ({"beta": 2.0, "epochs": 12}, 100, None),
        pytest.param({"beta": 5.0, "threshold": "soft"}, 40, None, marks=_NOT_ON_JAX),
        pytest.param({"beta": 5.0, "clipvalue": 0.02}, 0, None, marks=_NOT_ON_JAX),
        ({"beta": 5.0, "loss_scale_factor": 64.0}, 1, None),
        ({"beta": keras.optimizers.schedules.PolynomialDecay(0.0, 80, 10.0)}, 1, None),
        ({"l1": keras.optimizers.schedules.PolynomialDecay(0.0, 80, 4e-3), "beta": 5.0}, 1, None),
        pytest.param({"l1_overrides": {"fc1": 5e-3}, "beta": 5.0}, 1, None, marks=_NOT_ON_JAX),
    ],
    ids=["none returns", "many return", "soft", "clip", "scale", "beta", "l1", "overrides"],
)
def test_equals_the_dense_run(changes, least, most):
    returned = _check_equal(mlp, **changes)
    assert returned >= least
    assert most is None or returned <= most


def test_equals_the_dense_run_in_float32():
    # In epoch 10 an example lies on the kink of a unit's ReLU: dense runs whose initial weights
    # differ in their last bits end as far apart as 2e-4. Up to there they differ by 5e-7.
    assert _check_equal(mlp, "float32", tolerance=1e-3, beta=2.0, epochs=12) > 100
    assert _check_equal(mlp, "float32", tolerance=1e-5, beta=2.0, epochs=4) > 100


def test_a_layer_called_twice_in_an_inner_model():
    assert _check_equal(twice_called, beta=3.0) > 0


def test_assigning_to_the_optimizer_takes_effect():
    def assigning():
        return keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: optimizers[-1].beta.assign(2.0 if epoch < 6 else 30)
        )

    optimizers, runs = [], []
    for sparsity in (None, always()):
        model = mlp("float64")
        optimizers.append(lasso(12))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizers[-1], loss, jit_compile=COMPILED)
        kernels = Kernels()
        callbacks = [assigning(), kernels, *([sparsity] if sparsity else [])]
        model.fit(*examples("float64"), BATCH, epochs=12, verbose=0, callbacks=callbacks)
        runs.append(kernels.seen)
    np.testing.assert_allclose(runs[1][-1][0], runs[0][-1][0], atol=EXACT)
    assert np.count_nonzero(runs[0][6][0]) < np.count_nonzero(runs[0][5][0])


def test_a_model_without_other_variables():
    def build(dtype):
        keras.utils.set_random_seed(0)
        return keras.Sequential(
            [keras.Input((20,), dtype=dtype), layers.Dense(3, use_bias=False, dtype=dtype)]
        )

    _check_equal(build, epochs=4)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_data_of_unknown_length():
    """The end of the data is known only when it is met, and then only for later epochs."""
    runs = []
    for sparsity in (None, always()):
        model = mlp("float64")
        model.compile(lasso(3), "sparse_categorical_crossentropy", jit_compile=COMPILED)
        x, y = examples("float64")

        def batches(x=x, y=y):
            for begin in range(0, len(x), BATCH):
                yield x[begin : begin + BATCH], y[begin : begin + BATCH]

        import tensorflow as tf

        signature = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in (x, y))
        data = tf.data.Dataset.from_generator(batches, output_signature=signature)
        kernels = Kernels()
        model.fit(
            data,
            epochs=3,
            shuffle=False,
            verbose=0,
            validation_data=(x[:64], y[:64]),
            callbacks=[kernels, *([sparsity] if sparsity else [])],
        )
        runs.append(kernels.seen)
    for one, other in zip(*runs, strict=True):
        np.testing.assert_allclose(other[0], one[0], atol=EXACT)
    assert [done.steps for done in sparsity.report if done.layer == "fc1"] == [STEPS] * 3


def test_saved_in_the_middle_of_an_epoch(tmp_path):
    saved = []
    for sparsity in (None, always()):
        path = tmp_path / f"{len(saved)}.keras"
        saving = keras.callbacks.ModelCheckpoint(path, save_freq=STEPS + 5)
        model, *_ = train(mlp, sparsity, epochs=2, callbacks=[saving])
        saved.append(keras.saving.load_model(path).get_weights())
        assert np.any(model.get_weights()[0] != saved[-1][0])
    for one, other in zip(*saved, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_stopped_in_the_middle_of_an_epoch():
    def stop(batch, logs):
        model.stop_training = batch == 5

    model = mlp()
    model.compile(lasso(2), "sparse_categorical_crossentropy", jit_compile=COMPILED)
    x, y = examples()
    for callbacks in (
        [keras.callbacks.LambdaCallback(on_train_batch_end=stop), always()],
        [always(), keras.callbacks.LambdaCallback(on_train_batch_end=stop)],
    ):
        model.fit(x, y, BATCH, verbose=0, validation_data=(x, y), callbacks=callbacks)
        assert tuple(ops.convert_to_numpy(model.layers[1].kernel).shape) == (20, 40)


@pytest.mark.skipif(BACKEND == "torch", reason="the error arises outside the step")
@pytest.mark.parametrize("failing", [0, 3] if BACKEND == "jax" else [3])
def test_an_error_leaves_the_weights(failing):
    class Failing(keras.utils.PyDataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            if index == failing:
                raise RuntimeError("no such file")
            x, y = examples()
            return x[:BATCH], y[:BATCH]

    model = mlp()
    model.compile(lasso(2), "sparse_categorical_crossentropy", jit_compile=COMPILED)
    before = model.get_weights()[0]
    with pytest.raises(Exception, match="no such file"):
        model.fit(Failing(), verbose=0, callbacks=[always()])
    after = model.get_weights()[0]
    assert after.shape == before.shape
    assert np.any(after != before) == (failing > 0)


@pytest.mark.skipif(BACKEND != "jax", reason="elsewhere the kernel is empty in an epoch")
def test_a_callback_reads_and_writes_the_weights_in_an_epoch():
    """The certified run sees what the dense run sees, and goes on from what the callback wrote."""

    class Halving(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch % 7 == 3:
                kernel = self.model.layers[1].kernel
                self.seen = ops.convert_to_numpy(kernel)
                if batch == 10:
                    kernel.assign(np.where(np.arange(40) < 20, self.seen / 2, 0))

    runs = []
    for sparsity in (None, always()):
        halving = Halving()
        _, seen, _ = train(mlp, sparsity, "float64", 2, [halving], beta=3.0)
        runs.append([halving.seen, seen[-1][0]])
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one != 0, other != 0)
        np.testing.assert_allclose(other, one, atol=EXACT)


@pytest.mark.skipif(BACKEND != "jax", reason="the step is handed its state")
def test_several_steps_in_one_execution():
    weights = []
    for sparsity in (None, always()):
        model = mlp("float64")
        model.compile(lasso(2), "sparse_categorical_crossentropy", steps_per_execution=5)
        callbacks = [sparsity] if sparsity else []
        model.fit(*examples("float64"), BATCH, epochs=2, verbose=0, callbacks=callbacks)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(other, one, atol=EXACT)


@pytest.mark.skipif(BACKEND != "jax", reason="Keras distributes on JAX")
def test_a_distribution_is_refused():
    model = mlp()
    model.compile(lasso(1), "sparse_categorical_crossentropy")
    devices = keras.distribution.list_devices()
    distributed = keras.distribution.DataParallel(devices=devices[:1]).scope()
    with distributed, pytest.raises(ValueError, match="Received: the distribution DataParallel"):
        model.fit(*examples(), BATCH, verbose=0, callbacks=[always()])


@pytest.mark.skipif(BACKEND != "jax", reason="elsewhere it has no gradient and stays")
def test_a_layer_that_is_not_called():
    """JAX gives its kernel a gradient of zeros, and β-LASSO pulls the weights."""

    class Sparing(keras.Model):
        def __init__(self, dtype):
            super().__init__()
            self.fc1 = layers.Dense(3, dtype=dtype)
            self.spare = layers.Dense(4, name="spare", dtype=dtype)
            self.spare.build((None, 6))

        def call(self, inputs):
            return self.fc1(inputs)

    def build(dtype):
        keras.utils.set_random_seed(0)
        return Sparing(dtype)

    _check_equal(build, epochs=2, data=examples("float64"))


def test_a_callback_that_fails_can_be_followed_by_put_back():
    def fail(batch, logs):
        if batch == 3:
            raise RuntimeError("stop here")

    model, sparsity = mlp(), always()
    model.compile(lasso(2), "sparse_categorical_crossentropy", jit_compile=COMPILED)
    with pytest.raises(RuntimeError, match="stop here"):
        callbacks = [keras.callbacks.LambdaCallback(on_train_batch_end=fail), sparsity]
        model.fit(*examples(), BATCH, verbose=0, callbacks=callbacks)
    # On JAX, Keras itself gives the model its weights.
    assert model.get_weights()[0].size == (800 if BACKEND == "jax" else 0)
    sparsity.put_back()
    assert model.get_weights()[0].shape == (20, 40)
    assert np.isfinite(model.predict(examples()[0], verbose=0)).all()


def test_training_goes_on_without_the_callback():
    model, *_ = train(mlp, always(), epochs=1, learning_rate=0.1)
    assert "train_step" not in vars(model)
    before = model.get_weights()[0]
    model.fit(*examples(), BATCH, verbose=0)
    assert np.any(model.get_weights()[0] != before)


def _timed(monkeypatch, dense, sparse):
    """Times in ms as if measured; the trial's are those that the steps really took."""
    monkeypatch.setattr(certified_sparsity, "dense_seconds", lambda *_: dense / 1e3)
    monkeypatch.setattr(certified_sparsity, "sparse_seconds", lambda *_: sparse / 1e3)
    monkeypatch.setattr(certified_sparsity, "_HIGHEST_DENSITY", 1.0)


def _report_of(sparsity, layer):
    return [done for done in sparsity.report if done.layer == layer]


def test_the_faster_form_is_taken(monkeypatch):
    for dense, sparse, is_sparse in ((1e6, 1.0, True), (1.0, 2.0, False)):
        _timed(monkeypatch, dense, sparse)
        sparsity = CertifiedSparsity(verbose=0)
        *_, history = train(mlp, sparsity, epochs=2)
        first, second = _report_of(sparsity, "fc1")
        assert first.is_sparse == second.is_sparse == is_sparse
        assert first.steps == STEPS * is_sparse
        assert first.reason == f"{sparse:.2f} ms without checks against {dense:.2f} dense"
        assert ("measured in the last epoch" in second.reason) == is_sparse
        assert np.isnan(history["checked/fc1"]).any() != is_sparse


def test_a_slow_trial_ends(monkeypatch):
    _timed(monkeypatch, 1e-6, 0.0)
    sparsity = CertifiedSparsity("fc1", verbose=0)
    _, found, _ = train(mlp, sparsity, "float64", epochs=5)
    tried = [done.steps for done in _report_of(sparsity, "fc1")]
    trial = certified_sparsity._TRIAL_STEPS
    assert tried == [trial] * 5
    assert all("left after" in done.reason for done in sparsity.report)
    _, expected, _ = train(mlp, None, "float64", epochs=5)
    for one, other in zip(expected[-1], found[-1], strict=True):
        np.testing.assert_allclose(other, one, atol=EXACT)


def test_a_full_layer_stays_dense():
    sparsity = CertifiedSparsity(verbose=0)
    train(mlp, sparsity, epochs=1)
    assert not any(done.is_sparse for done in sparsity.report)
    assert "more than 20 % of the weights" in sparsity.report[0].reason


def test_times_are_measured():
    """Both forms of a layer are really run: the sparse one of a large empty kernel is faster."""
    kernel = np.zeros((600, 500), "float32")
    kernel[0, 0] = 1
    dense = certified_sparsity.dense_seconds(kernel.shape, "float32", 64, True)
    sparse = certified_sparsity.sparse_seconds(kernel, 64, True)
    assert 0 < sparse < dense


def test_summary(capsys):
    sparsity = CertifiedSparsity("fc1", choose="always")
    train(mlp, sparsity, epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines == sparsity.summary().splitlines()
    assert lines[0].split()[:4] == ["epoch", "layer", "form", "density"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["1", "fc1", "sparse"],
        ["2", "fc1", "sparse"],
    ]
    assert all(line.endswith("asked for") for line in lines[1:])


def test_the_numbers_of_the_summary():
    sparsity = CertifiedSparsity()
    sparsity.report = [
        LayerEpoch(1, "fc2", False, "full", 0.3, dense_bytes=500_000),
        LayerEpoch(2, "fc1", True, "fast", 0.0525, steps=7, checked=0.25, returned=12,
                   sparse_ms=1.5, dense_ms=3.25, sparse_bytes=1_260_000, dense_bytes=7_000_000),
    ]  # fmt: skip
    heading, dense, sparse = sparsity.summary().splitlines()
    assert dense.split() == ["2", "fc2", "dense", "30.00", "%", "0.50", "full"]
    assert sparse.split() == [
        "3", "fc1", "sparse", "5.25", "%", "25.00", "%", "12", "1.50", "3.25", "1.26", "7.00",
        "fast",
    ]  # fmt: skip
    assert heading.index("why") == dense.index("full") == sparse.index("fast")


def test_only_dense_layers_asked_for_are_sparse():
    sparsity = CertifiedSparsity("fc[12]", choose="always", verbose=0)
    train(mlp, sparsity, epochs=1)
    assert [done.layer for done in sparsity.report] == ["fc1", "fc2"]
    assert sparsity.report[0] == dataclasses.replace(sparsity.report[0], epoch=0, steps=STEPS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"choose": "often"}, "Received: choose='often'"),
        ({"layers": "("}, r"Received: layers='\('"),
        ({"layers": 3}, "Received: layers=3"),
        ({"batch_size": 0}, "Received: batch_size=0"),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        CertifiedSparsity(**arguments)
