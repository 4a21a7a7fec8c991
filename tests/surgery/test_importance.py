"""The scores of channels against formulas in NumPy and against changes of the loss itself."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfconvbias.surgery import channel_groups, channel_scores, prune


@pytest.fixture(scope="module")
def model():
    """Two dense layers with a normalization between them and another one beside it."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    x = layers.Dense(4, name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    outputs = layers.Add()([layers.Dense(2, name="left")(x), layers.Dense(2, name="right")(x)])
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(0)
    model.set_weights(
        [
            rng.uniform(0.3, 1.0, w.shape) * rng.choice([-1, 1], w.shape)
            if "var" not in v.path
            else rng.uniform(0.5, 1.5, w.shape)
            for v, w in zip(model.weights, model.get_weights(), strict=True)
        ]
    )
    return model


def arrays(model):
    return {v.path: ops.convert_to_numpy(v).astype("float64") for v in model.weights}


def data(count=40):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(count, 3)), rng.normal(size=(count, 2))
    return x.astype("float32"), y.astype("float32")


def hidden(w, x):
    """What the second layers read."""
    x = x.astype("float64") @ w["first/kernel"] + w["first/bias"]
    x = (x - w["norm/moving_mean"]) / np.sqrt(w["norm/moving_variance"] + 1e-3)
    return np.maximum(x * w["norm/gamma"] + w["norm/beta"], 0)


def losses(w, x, y, scale=None):
    """Squared error of each example, with the channels that are read scaled."""
    h = hidden(w, x) * (np.ones(4) if scale is None else scale)
    out = sum(h @ w[f"{name}/kernel"] + w[f"{name}/bias"] for name in ("left", "right"))
    return np.square(out - y).mean(axis=1)


def slopes(w, x, y, step=1e-6):
    """The change of each example's loss with the scale of each channel, by differences."""
    found = []
    for channel in range(4):
        scales = [np.ones(4), np.ones(4)]
        scales[0][channel] += step
        scales[1][channel] -= step
        above, below = (losses(w, x, y, scale) for scale in scales)
        found.append((above - below) / (2 * step))
    return np.stack(found, axis=1)


def scores(model, importance, **options):
    (found,) = channel_scores(model, channel_groups(model), importance, **options).values()
    return found


def squares(w):
    return [
        np.square(w["first/kernel"]).sum(axis=0),
        np.square(w["left/kernel"]).sum(axis=1),
        np.square(w["right/kernel"]).sum(axis=1),
    ]


def test_magnitude_is_the_mean_square_norm_over_the_kernels(model):
    expected = np.mean(squares(arrays(model)), axis=0)
    np.testing.assert_allclose(scores(model, "magnitude"), expected, rtol=1e-6)


def test_lamp_divides_by_all_that_is_not_smaller(model):
    magnitudes = np.mean(squares(arrays(model)), axis=0)
    expected = [m / magnitudes[magnitudes >= m].sum() for m in magnitudes]
    np.testing.assert_allclose(scores(model, "lamp"), expected, rtol=1e-6)


def test_fpgm_is_the_distance_from_all_other_kernels(model):
    kernels = arrays(model)["first/kernel"].T
    expected = [sum(np.linalg.norm(one - other) for other in kernels) for one in kernels]
    np.testing.assert_allclose(scores(model, "fpgm"), expected, rtol=1e-5)


def test_bn_scale_is_gamma(model):
    expected = np.abs(arrays(model)["norm/gamma"])
    np.testing.assert_allclose(scores(model, "bn_scale"), expected, rtol=1e-6)


def test_taylor_is_the_slope_of_the_loss(model):
    x, y = data()
    slope = slopes(arrays(model), x, y)
    # Batches of 32 examples and of the 8 that are left.
    expected = (32 * np.abs(slope[:32].mean(axis=0)) + 8 * np.abs(slope[32:].mean(axis=0))) / 40
    found = scores(model, "taylor", dataset=(x, y), loss="mse")
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_fisher_squares_the_slope_of_every_example(model):
    x, y = data(6)
    expected = 0.5 * np.square(slopes(arrays(model), x, y)).mean(axis=0)
    model.compile(loss="mse")
    found = scores(model, "fisher", dataset=[(x[:4], y[:4]), (x[4:], y[4:])])
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_activation_is_what_is_read(model):
    x, _ = data()
    expected = hidden(arrays(model), x).mean(axis=0)
    for dataset in (x, (x, None), [x[:7], x[7:]]):
        np.testing.assert_allclose(
            scores(model, "activation", dataset=dataset), expected, rtol=1e-4
        )


def test_activations_of_images_are_averaged_over_places():
    first = layers.Conv2D(2, 1, use_bias=False, name="first")
    model = keras.Sequential([keras.Input((2, 2, 1)), first, layers.Flatten(), layers.Dense(1)])
    first.set_weights([np.array([[[[1.0, -3.0]]]])])
    images = np.arange(8, dtype="float32").reshape(2, 2, 2, 1)
    found = channel_scores(model, channel_groups(model), "activation", dataset=images)["first"]
    np.testing.assert_allclose(found, [3.5, 10.5])


def test_random_scores_follow_the_seed(model):
    first, again, other = (scores(model, "random", seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_lowest_scores_go(model):
    expected = np.argsort(slopes(arrays(model), *data())[:32].mean(axis=0) ** 2)[:1]
    x, y = data()
    report = prune(
        model, ratio=0.25, importance="taylor", dataset=(x[:32], y[:32]), loss="mse", round_to=1
    ).report
    assert report.groups[1].removed == tuple(expected)


def test_changes_of_the_loss_are_weighed_against_what_a_channel_costs():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(40, name="a"), layers.Dense(4, name="b"), layers.Dense(2)]
    )
    x, y = data()
    options = {"importance": "taylor", "dataset": (x, y), "loss": "mse"}
    found = channel_scores(model, channel_groups(model), **options)
    # A channel of `a` has 3 + 1 weights and is read by 4, one of `b` 40 + 1 and 2.
    costs = {"a": 8, "b": 43}
    report = prune(model, parameters=0.5, round_to=1, **options).report
    cut, left = [], []
    for group in report.groups:
        for channel, score in enumerate(found.get(group.name, [])):
            (cut if channel in group.removed else left).append(score / costs[group.name])
    assert cut
    assert max(cut) <= min(left)


def test_groups_of_which_a_criterion_says_nothing_stay():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, name="a"), layers.BatchNormalization(),
         layers.Dense(4, name="b"), layers.Dense(1)]
    )  # fmt: skip
    report = prune(model, ratio=0.5, importance="bn_scale", scope="layer", round_to=1).report
    after = {group.name: (group.after, group.kept_because) for group in report.groups}
    assert after["a"] == (2, "")
    assert after["b"] == (4, "'bn_scale' says nothing of it")


def test_errors():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="first"), layers.Dense(2)])
    groups = channel_groups(model)
    x, y = data()
    with pytest.raises(ValueError, match="`loss` or a model that is compiled"):
        channel_scores(model, groups, "taylor", dataset=(x, y))
    with pytest.raises(ValueError, match="targets missing"):
        channel_scores(model, groups, "taylor", dataset=x, loss="mse")
    with pytest.raises(ValueError, match="`dataset` must hold at least one batch"):
        channel_scores(model, groups, "activation", dataset=[])
    with pytest.raises(ValueError, match=r"must give group 'first' 4 finite scores"):
        channel_scores(model, groups, lambda group: np.ones(3))
    with pytest.raises(ValueError, match=r"must give group 'first' 4 finite scores"):
        channel_scores(model, groups, lambda group: [1, 2, np.nan, 3])
