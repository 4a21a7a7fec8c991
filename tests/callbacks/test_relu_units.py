import keras
import numpy as np
import pytest
from keras import ops

from tfconvbias.analysis import active_share
from tfconvbias.callbacks import ActiveUnits, GeneralizationGap, PathNorm, Sharpness
from tfconvbias.data import sphere_regression
from tfconvbias.models import HalfMeanSquaredError, TwoLayerReLU

DATA = sphere_regression(24, 12, 3, num_test=50, seed=2)


def _fit(connectivity, callbacks, loss=None, rate=0.3, epochs=6):
    patch_size = None if connectivity == "dense" else 3
    model = TwoLayerReLU(16, connectivity=connectivity, dimension=12, patch_size=patch_size, seed=0)
    model.compile(keras.optimizers.SGD(rate), loss or HalfMeanSquaredError())
    history = model.fit(
        DATA.x_train, DATA.y_train, batch_size=24, epochs=epochs, verbose=0, callbacks=callbacks
    )
    return model, history.history


@pytest.mark.parametrize("connectivity", ["dense", "local", "conv"])
def test_the_bound_holds_at_every_measurement(connectivity):
    x, y = DATA.x_train, DATA.y_train
    _, history = _fit(connectivity, [Sharpness(x, y), PathNorm(x, y), ActiveUnits(x)])
    norms, bounds = np.array(history["path_norm"]), np.array(history["path_norm_bound"])
    assert len(norms) == 6
    assert (norms > 0).all()
    assert (norms <= bounds).all()
    assert all(0.5 < share <= 1 for share in history["active_share"])


def test_the_bound_takes_the_longest_patch():
    x, y = DATA.x_train, DATA.y_train
    model, history = _fit("conv", [Sharpness(x, y), PathNorm(x, y)], epochs=2)
    lengths = np.linalg.norm(x.reshape(24, 4, 3), axis=2)
    assert lengths.max() > 1.5 * lengths.mean()
    error = np.mean((ops.convert_to_numpy(model(x)) - y) ** 2)
    rest = np.sqrt((lengths.max() ** 2 + 1) * error)
    expected = (history["sharpness"][-1] - 1 + rest) / 2
    np.testing.assert_allclose(history["path_norm_bound"][-1], expected, rtol=1e-4)


def test_units_of_the_loss_cancel():
    x, y = DATA.x_train, DATA.y_train
    _, half = _fit("conv", [Sharpness(x, y), PathNorm(x, y)])
    _, full = _fit(
        "conv", [Sharpness(x, y), PathNorm(x, y, sharpness_scale=0.5)], loss="mse", rate=0.15
    )
    np.testing.assert_allclose(full["sharpness"], 2 * np.array(half["sharpness"]), rtol=1e-3)
    np.testing.assert_allclose(full["edge"], 2 * np.array(half["edge"]), rtol=1e-6)
    for name in ("path_norm", "path_norm_bound"):
        np.testing.assert_allclose(full[name], half[name], rtol=1e-3)


def test_the_gap_is_that_of_the_definition():
    points = (DATA.x_train, DATA.y_train, DATA.x_test, DATA.y_test)
    model, history = _fit("local", [GeneralizationGap(*points, 0.5, every=4)])
    train, excess = (
        float(np.mean((ops.convert_to_numpy(model(x)) - y) ** 2))
        for x, y in ((DATA.x_train, DATA.y_train), (DATA.x_test, DATA.y_test))
    )
    np.testing.assert_allclose(history["train_error"][-1], train, rtol=1e-5)
    np.testing.assert_allclose(history["excess_risk"][-1], excess, rtol=1e-5)
    np.testing.assert_allclose(history["gap"][-1], abs(excess + 0.25 - train), rtol=1e-5)
    # With the two sets exchanged the difference has the other sign, and the gap is the same.
    for order in (points, points[2:] + points[:2]):
        watcher = GeneralizationGap(*order, 0.0)
        watcher.set_model(model)
        watcher.on_train_begin()
        np.testing.assert_allclose(watcher.measure({})["gap"], abs(train - excess), rtol=1e-3)
    assert np.isnan(history["gap"][0])
    assert not np.isnan(history["gap"][3])


def test_active_share_sees_dead_units():
    model, _ = _fit("conv", [], epochs=1)
    hidden = model.get_layer("hidden")
    bias = ops.convert_to_numpy(hidden.bias).copy()
    bias[:4] = -100.0
    hidden.bias.assign(bias)
    history = model.fit(
        DATA.x_train, DATA.y_train, verbose=0, callbacks=[ActiveUnits(DATA.x_train)]
    ).history
    expected = active_share(
        DATA.x_train.reshape(24, 4, 3),
        ops.convert_to_numpy(hidden.kernel),
        ops.convert_to_numpy(hidden.bias),
    )
    assert history["active_share"] == [expected]
    assert expected == 0.75


def test_the_path_norm_needs_the_sharpness():
    with pytest.raises(ValueError, match="needs the `sharpness`"):
        _fit("conv", [PathNorm(DATA.x_train, DATA.y_train)], epochs=1)
