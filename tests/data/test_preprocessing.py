import keras
import numpy as np
import pytest
from keras import ops

from tfconvbias.data import (
    AUGMENTATIONS,
    Cutout,
    Normalize,
    PadCrop,
    PermutePixels,
    Preprocessing,
    augmentation,
    make_motifs,
    permute_pixels,
    preprocessing,
)

pytestmark = pytest.mark.backend
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
LIGHT = [name for name in AUGMENTATIONS if not name.startswith("randaugment")]


def images(count=8, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (count, 32, 32, 3), dtype=np.uint8)


def run(layer, x, training=True):
    return ops.convert_to_numpy(layer(x, training=training))


def kinds(layers):
    return [type(layer).__name__ for layer in layers]


def test_order_of_the_stack():
    assert kinds(preprocessing((MEAN, STD)).layers) == ["Normalize"]
    assert kinds(preprocessing((MEAN, STD), augment="randaugment_cutout").layers) == [
        "RandAugment",
        "PadCrop",
        "Normalize",
        "Cutout",
    ]
    own = keras.layers.Identity()
    layers = preprocessing((MEAN, STD), augment=own, padding=2, cutout_length=20).layers
    assert kinds(layers) == ["Identity", "PadCrop", "Normalize", "Cutout"]
    assert layers[0] is own
    assert (layers[1].padding, layers[1].flip, layers[3].length) == (2, True, 20)
    before, after = augmentation("flip_crop_cutout")
    assert kinds(before) == ["PadCrop"]
    assert kinds(after) == ["Cutout"]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_inference_is_normalisation_and_nothing_else(name):
    x = images()
    layer = preprocessing((MEAN, STD), augment=name, seed=0)
    expected = run(Normalize(MEAN, STD), x)
    assert (run(layer, x, training=False) == expected).all()
    assert (ops.convert_to_numpy(layer(x)) == expected).all()


def test_training_crops_and_flips_each_image():
    x = np.repeat(images(1), 60, axis=0)
    y = run(preprocessing(((0.0,) * 3, (1 / 255,) * 3), augment="flip_crop", seed=0), x)
    padded = np.pad(x[0], [(4, 4), (4, 4), (0, 0)]).astype("float32")
    windows = {}
    for i in range(9):
        for j in range(9):
            window = padded[i : i + 32, j : j + 32]
            windows[window.tobytes()] = False
            windows[np.ascontiguousarray(window[:, ::-1]).tobytes()] = True
    flips = [windows[np.rint(image).tobytes()] for image in y]
    assert 15 < sum(flips) < 45
    assert len({image.tobytes() for image in y}) > 30


def test_cut_squares_hold_the_mean():
    y = run(preprocessing((MEAN, STD), augment="flip_crop_cutout", padding=0, seed=0), images())
    assert ((y == 0).all(-1).sum((1, 2)) >= 8 * 8).all()


def test_seed_fixes_the_stack_and_its_layers_differ():
    x = images()
    first = preprocessing((MEAN, STD), augment="flip_crop_cutout", seed=4)
    again = preprocessing((MEAN, STD), augment="flip_crop_cutout", seed=4)
    other = preprocessing((MEAN, STD), augment="flip_crop_cutout", seed=5)
    once = run(first, x)
    assert (run(again, x) == once).all()
    assert (run(other, x) != once).any()
    crop, _, cutout = first.layers
    assert len({crop.seed, crop.flip_seed, cutout.seed}) == 3
    # A stage keeps its seed whatever stands beside it.
    assert augmentation("crop", seed=4).before[0].seed == first.layers[0].seed


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_output_has_the_policys_compute_dtype(policy):
    keras.config.set_dtype_policy(policy)
    try:
        layer = preprocessing((MEAN, STD), augment="flip_crop_cutout", seed=0)
        output = layer(keras.Input((32, 32, 3), dtype="uint8"))
        x = images()
        result = layer(x, training=False)
        exact = run(Normalize(MEAN, STD, dtype="float32"), x)
    finally:
        keras.config.set_dtype_policy("float32")
    compute_dtype = policy.removeprefix("mixed_")
    assert output.dtype == keras.backend.standardize_dtype(result.dtype) == compute_dtype
    expected = ops.convert_to_numpy(ops.cast(ops.cast(exact, compute_dtype), "float32"))
    assert (ops.convert_to_numpy(ops.cast(result, "float32")) == expected).all()


def test_statistics_from_everywhere():
    data = make_motifs(10, num_train=50, num_test=10)
    measured = preprocessing(data).layers[0]
    assert measured.get_config()["mean"] == list(Normalize.from_data(data.x_train).mean)
    assert preprocessing("cifar10").layers[0].mean == (0.4914, 0.4822, 0.4465)
    own = Normalize(MEAN, STD)
    assert preprocessing(own).layers == [own]
    with pytest.raises(ValueError, match=r"one of cifar10, cifar100, svhn.*statistics='imagenet'"):
        preprocessing("imagenet")


def make_model(augment, x=None):
    inputs = keras.Input((32, 32, 3), dtype="uint8")
    outputs = preprocessing((MEAN, STD), augment=augment, seed=1)(inputs)
    outputs = keras.layers.GlobalAveragePooling2D()(outputs)
    return keras.Model(inputs, keras.layers.Dense(2)(outputs))


@pytest.mark.parametrize("augment", LIGHT)
def test_saved_inside_a_model(augment, tmp_path):
    model = make_model(augment)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = images()
    assert (again.predict(x, verbose=0) == model.predict(x, verbose=0)).all()
    assert (run(again, x) == run(model, x)).all()  # the state of the draws is saved as well


@pytest.mark.parametrize("jit_compile", [True, False])
def test_compiled_training_step(jit_compile):
    if keras.config.backend() == "torch" and jit_compile:
        pytest.skip("Keras does not compile steps on PyTorch by default")
    losses = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        model = make_model("flip_crop_cutout")
        model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=jit_compile)
        x, y = images(32), np.zeros((32, 2), "float32")
        history = model.fit(x, y, batch_size=16, epochs=3, verbose=0, shuffle=False)
        losses.append(history.history["loss"])
        # Without augmentation, and at rate 0, the loss would be the same in every epoch.
        assert len(set(losses[-1])) == 3
        assert model.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    assert losses[0] == losses[1]


@pytest.mark.tensorflow
def test_rand_augment_trains():
    layer = preprocessing((MEAN, STD), augment="randaugment", seed=1, factor=0.3)
    x = images(16)
    y = run(layer, x)
    assert y.shape == x.shape
    assert np.isfinite(y).all()
    low, high = (np.array([0, 1])[:, None] - np.array(MEAN)) / np.array(STD)
    assert (y >= low - 1e-5).all() and (y <= high + 1e-5).all()
    assert (y != run(Normalize(MEAN, STD), x)).any()
    model = make_model("randaugment")
    model.compile("sgd", "mse")
    assert np.isfinite(model.train_on_batch(x, np.zeros((16, 2))))


def test_errors():
    with pytest.raises(ValueError, match=r"`policy` must be one of none, flip, .*policy='flop'"):
        augmentation("flop")
    with pytest.raises(ValueError, match=r"a string, or a `Layer`. Received: policy=3"):
        augmentation(3)
    with pytest.raises(ValueError, match=r"at least one layer. Received: layers=\[\]"):
        Preprocessing([])


def test_preprocessing_layer_round_trip():
    layer = Preprocessing([PadCrop(2, seed=1), Normalize(MEAN, STD), Cutout(4, seed=2)])
    again = Preprocessing.from_config(layer.get_config())
    assert kinds(again.layers) == ["PadCrop", "Normalize", "Cutout"]
    assert (run(again, images()) == run(layer, images())).all()


@pytest.mark.parametrize("augment", ["none", "flip_crop_cutout"])
@pytest.mark.parametrize("training", [False, True])
def test_pixels_are_permuted_after_the_augmentation(augment, training):
    plain = preprocessing((MEAN, STD), augment=augment, seed=3)
    permuted = preprocessing((MEAN, STD), augment=augment, seed=3, permute_pixels=7)
    x = images()
    expected = permute_pixels(run(plain, x, training), 7)
    np.testing.assert_array_equal(run(permuted, x, training), expected)
    again = Preprocessing.from_config(permuted.get_config())
    assert kinds(again.layers)[-1] == "PermutePixels"
    assert again.layers[-1].seed == 7


def test_permutations_need_a_seed_and_a_size():
    with pytest.raises(ValueError, match="seed=-1"):
        PermutePixels(-1)
    with pytest.raises(ValueError, match="known size"):
        PermutePixels(0).build((None, None, None, 3))
