"""Shapes, exact parameter counts and reload of every family at every connectivity."""

import inspect

import keras
import numpy as np
import pytest

from tfconvbias import analysis, models

SHAPE = (16, 16, 3)
CLASSES = 7

FAMILIES = {
    "s_conv": lambda **kw: models.SConv(2, connectivity="conv", **kw),
    "s_local": lambda **kw: models.SConv(2, connectivity="local", **kw),
    "s_fc": lambda **kw: models.SConv(2, connectivity="dense", **kw),
    "d_conv": lambda **kw: models.DConv(2, connectivity="conv", **kw),
    "d_local": lambda **kw: models.DConv(2, connectivity="local", **kw),
    "d_fc": lambda **kw: models.DConv(2, connectivity="dense", **kw),
    "three_fc": lambda **kw: models.ThreeFC(24, **kw),
    "resnet18": lambda **kw: models.ResNet18(2, **kw),
    "resnet18_local": lambda **kw: models.ResNet18(2, connectivity="local", **kw),
    "resnet18_dense": lambda **kw: models.ResNet18(1, connectivity="dense", **kw),
}


def kernel_count(model):
    return sum(int(np.prod(kernel.shape)) for kernel in analysis.kernels(model).values())


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_shape_name_and_reload(name, tmp_path):
    model = FAMILIES[name](input_shape=SHAPE, classes=CLASSES)
    assert model.name == name
    images = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype("float32")
    logits = keras.ops.convert_to_numpy(model(images))
    assert logits.shape == (3, CLASSES)
    assert logits.std() > 0
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(reloaded(images)), logits)


@pytest.mark.parametrize("size", [16, 15])
@pytest.mark.parametrize("name", sorted(models.parameter_counts.FAMILIES))
def test_counts_match_the_models(name, size):
    shape = (size, size, 3)
    model = FAMILIES[name](input_shape=shape, classes=CLASSES)
    width = {"three_fc": 24, "resnet18_dense": 1}.get(name, 2)
    assert kernel_count(model) == models.num_kernel_parameters(
        name, width, input_shape=shape, classes=CLASSES
    )


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_all_variables_are_kernels_batchnorm_and_the_last_bias(name):
    model = FAMILIES[name](input_shape=SHAPE, classes=CLASSES)
    batchnorm = sum(
        4 * layer.gamma.shape[0]
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    assert model.count_params() == kernel_count(model) + batchnorm + CLASSES


@pytest.mark.parametrize("alpha", [1, 10, 150])
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("classes", [10, 100])
def test_shallow_counts_equal_the_closed_forms_of_table_4(alpha, size, classes):
    first = {"s_conv": 243, "s_local": 243 * size**2 // 4, "s_fc": 3 * size**4 // 4}
    for family, per_channel in first.items():
        expected = 6 * size**2 * alpha**2 + (per_channel + 24 * classes) * alpha
        found = models.num_kernel_parameters(
            family, alpha, input_shape=(size, size, 3), classes=classes
        )
        assert found == expected


def test_deep_counts_equal_the_closed_form():
    """Table 3's D-CONV column with exact sums: its 9·2⁸α² stands for 9·(2⁸ − 2)α²."""
    for alpha in (1, 15, 40):
        expected = (9 * 254 + 4 * 32**2) * alpha**2 + (27 + 640) * alpha
        assert models.num_kernel_parameters("d_conv", alpha) == expected


def test_counts_of_the_paper_in_millions():
    count = models.num_kernel_parameters
    assert [round(count(f, 150) / 1e6, 1) for f in ("s_conv", "s_local", "s_fc")] == [
        138.3,
        147.6,
        256.2,
    ]
    assert round(count("d_conv", 15) / 1e6, 3) == 1.446
    assert round(count("d_local", 15) / 1e6, 1) == 11.7
    assert round(count("d_fc", 15) / 1e6) == 282


def test_layers_of_figure_3():
    """Its reference lines: 3072·256α, 256α·25α and 25α·10 with α = 230."""
    count = models.num_kernel_parameters("s_fc", 230, hidden_ratio=25)
    assert count == 180_879_360 + 338_560_000 + 57_500
    small = models.SConv(
        2, connectivity="dense", input_shape=SHAPE, classes=CLASSES, hidden_ratio=25
    )
    assert small.get_layer("fc1").units == 50


def test_resnet18_has_the_published_count():
    trainable = sum(int(np.prod(v.shape)) for v in models.ResNet18().trainable_variables)
    assert trainable == 11_173_962
    assert models.num_kernel_parameters("resnet18", 64) == 11_164_352


@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize(("connectivity", "kernel_size"), [("conv", 3), ("local", 3), ("conv", 5)])
def test_both_branches_of_a_strided_block_are_centred_on_the_same_pixels(
    size, connectivity, kernel_size
):
    model = models.ResNet18(
        1, kernel_size=kernel_size, connectivity=connectivity, input_shape=(size, size, 3)
    )
    strided = model.get_layer("stage2_block1_conv1")
    kernel = np.zeros(strided.kernel.shape, "float32")
    taps = kernel.reshape(-1, kernel_size, kernel_size, *kernel.shape[-2:])
    taps[:, kernel_size // 2, kernel_size // 2, 0, 0] = 1
    strided.kernel.assign(kernel)
    before = model.get_layer("stage1_block2_relu").output
    branch = keras.Model(model.input, [before, strided.output])
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype("float32")
    pixels, read = (keras.ops.convert_to_numpy(x) for x in branch(images))
    # A 1×1 convolution with stride 2 reads every second pixel, from the first one on.
    np.testing.assert_allclose(read[..., 0], pixels[:, ::2, ::2, 0], rtol=1e-6)


def test_every_kernel_of_resnet18_has_the_size_asked_for():
    model = models.ResNet18(1, kernel_size=5, input_shape=(8, 8, 3))
    sizes = {
        layer.name: layer.kernel_size
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    }
    assert len(sizes) == 1 + 4 * 2 * 2 + 3
    for name, size in sizes.items():
        assert size == ((1, 1) if name.endswith("shortcut") else (5, 5)), name


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_activations_are_normalized_before_they_are_rectified(name):
    """Every ReLU reads a BatchNorm of a kernel's output, or in ResNet18 a sum of two such."""

    def before(layer):
        found = layer.input if isinstance(layer.input, list) else [layer.input]
        return [tensor._keras_history.operation for tensor in found]

    model = FAMILIES[name](input_shape=SHAPE, classes=CLASSES)
    rectifiers = [layer for layer in model.layers if isinstance(layer, keras.layers.ReLU)]
    assert rectifiers
    for rectifier in rectifiers:
        (previous,) = before(rectifier)
        if isinstance(previous, keras.layers.Add):
            assert any(isinstance(x, keras.layers.BatchNormalization) for x in before(previous))
            continue
        assert isinstance(previous, keras.layers.BatchNormalization)
        (source,) = before(previous)
        assert hasattr(source, "kernel")


def test_budget():
    assert models.base_channels_for_budget("s_fc", 256_000_000) == 150
    assert models.base_channels_for_budget("d_conv", 1_450_000) == 15
    assert abs(models.base_channels_for_budget("three_fc", 256_000_000) - 14_540) < 20
    for family in models.parameter_counts.FAMILIES:
        width = 37
        budget = models.num_kernel_parameters(family, width)
        assert models.base_channels_for_budget(family, budget) == width


FUNCTIONS = ("SConv", "DConv", "ThreeFC", "ResNet18", "StructuredBase", "VanillaCNN", "AlexNet")


@pytest.mark.parametrize("name", [*FUNCTIONS, "TwoLayerReLU"])
def test_the_width_comes_first_and_everything_else_has_a_name(name):
    build = getattr(models, name)
    parameters = list(inspect.signature(build).parameters.values())
    kinds = [p.kind for p in parameters]
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    widths = {"base_channels", "hidden_units", "filters", "width", "base"}
    assert set(positional) <= widths
    assert len(positional) == (0 if name == "AlexNet" else 1)
    assert set(kinds[len(positional) :]) == {inspect.Parameter.KEYWORD_ONLY}


def test_a_family_is_the_function_that_it_was_made_from():
    assert models.SConv.__name__ == "SConv"
    assert "all-convolutional network" in models.SConv.__doc__
    assert repr(models.SConv) == "<model family SConv>"
    with pytest.raises(TypeError, match="positional"):
        models.ResNet18(8, 3)


# Kernels of ResNet18 that is local on 64×64 images with 8 channels, by hand: the first layer has
# 64·64 positions of 3·3·3·8, stage 1 four layers of 64·64 positions of 3·3·8·8, and so on.
LOCAL_ENTRIES = (
    4096 * 27 * 8
    + 4 * 4096 * 9 * 8 * 8
    + 1024 * (9 * (8 * 16 + 3 * 16 * 16) + 8 * 16)
    + 256 * (9 * (16 * 32 + 3 * 32 * 32) + 16 * 32)
    + 64 * (9 * (32 * 64 + 3 * 64 * 64) + 32 * 64)
    + 64 * 10
)


def test_a_network_that_does_not_fit_is_refused_before_anything_is_allocated(monkeypatch):
    monkeypatch.setattr("tfconvbias.models.parameter_counts.available_bytes", lambda: 2**27)
    monkeypatch.setattr(keras.layers.Layer, "add_weight", lambda *_, **__: pytest.fail("allocated"))
    # 4 bytes for each entry, and the largest kernel (all stages have equal ones) once more.
    needed = 4 * (LOCAL_ENTRIES + 256 * 9 * 32 * 32) / 2**20
    with pytest.raises(MemoryError) as caught:
        models.ResNet18(8, connectivity="local", input_shape=(64, 64, 3))
    assert f"{LOCAL_ENTRIES:,} parameters: building it takes {needed:.4g} MiB" in str(caught.value)
    assert "128 MiB are left" in str(caught.value)
    for build in (
        lambda: models.SConv(8, connectivity="dense", input_shape=(64, 64, 3)),
        lambda: models.DConv(32, connectivity="local", input_shape=(64, 64, 3)),
        lambda: models.ThreeFC(8000),
        # Its fc1 has 32 · 4,000,000 entries of 4 bytes; with the default ratio it would have 1,536.
        lambda: models.SConv(2, input_shape=(8, 8, 3), hidden_ratio=2_000_000),
    ):
        with pytest.raises(MemoryError, match=r"parameters: building it takes [\d.]+ [MG]iB"):
            build()


def test_raw_integers_into_a_network_on_floats_are_noticed():
    model = models.SConv(1, input_shape=(8, 8, 3), classes=3)
    raw = np.zeros((2, 8, 8, 3), "uint8")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.warns(UserWarning, match="'s_conv' takes normalised float images.*uint8") as caught:
        model.fit(raw, np.zeros(2), epochs=2, batch_size=1, verbose=0)
    if keras.config.backend() != "torch":
        # While the step is traced, not at each of its four calls.
        assert len(caught) < 4
    with pytest.warns(UserWarning, match="uint8"):
        keras.models.clone_model(model)(raw)
    # Warnings are errors in the tests.
    model.predict(raw.astype("float32"), verbose=0)
    inside = models.SConv(1, input_shape=(8, 8, 3), preprocessing=keras.layers.Rescaling(1.0))
    inside(raw)


def test_layers_are_named_alike_in_every_connectivity():
    names = [
        list(analysis.kernels(models.SConv(2, connectivity=connectivity, input_shape=SHAPE)))
        for connectivity in ("conv", "local", "dense")
    ]
    assert names == [["conv1", "fc1", "fc2"]] * 3
    deep = list(analysis.kernels(models.DConv(1, connectivity="dense", input_shape=SHAPE)))
    assert deep == [f"conv{i}" for i in range(1, 9)] + ["fc1", "fc2"]


@pytest.mark.parametrize(
    ("name", "last"),
    [("s_conv", ("fc1", "fc2")), ("d_conv", ("fc1", "fc2")), ("three_fc", ("fc2", "fc3"))],
)
def test_dropout_stands_before_the_last_two_dense_layers(name, last):
    model = FAMILIES[name](input_shape=SHAPE, dropout_rate=0.25)
    names = [layer.name for layer in model.layers]
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert [layer.name for layer in dropouts] == [f"{dense}_dropout" for dense in last]
    assert [names[names.index(dense) - 1] for dense in last] == [layer.name for layer in dropouts]
    assert all(layer.rate == 0.25 for layer in dropouts)
    without = FAMILIES[name](input_shape=SHAPE)
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in without.layers)


def test_dense_network_computes_the_conv_network_when_given_its_matrix():
    """S-FC contains S-CONV: with the convolution's matrix as kernel the logits agree."""
    conv = models.SConv(2, connectivity="conv", input_shape=(8, 8, 3), classes=3)
    dense = models.SConv(2, connectivity="dense", input_shape=(8, 8, 3), classes=3)
    identity = np.eye(192, dtype="float32").reshape(192, 8, 8, 3)
    matrix = conv.get_layer("conv1")(identity)
    dense.get_layer("conv1").kernel.assign(keras.ops.reshape(matrix, (192, 32)))
    for name in ("fc1", "fc2"):
        dense.get_layer(name).set_weights(conv.get_layer(name).get_weights())
    images = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(dense(images)),
        keras.ops.convert_to_numpy(conv(images)),
        atol=1e-5,
    )


def test_logits_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = models.SConv(2, input_shape=SHAPE)
        assert keras.backend.standardize_dtype(model.output.dtype) == "float32"
        assert model.get_layer("conv1").compute_dtype == "bfloat16"
        assert all(v.dtype == "float32" for v in model.weights)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: models.SConv(0), "base_channels=0"),
        (lambda: models.SConv(2, connectivity="sparse"), "connectivity=sparse"),
        (lambda: models.SConv(2, dropout_rate=1.0), "dropout_rate=1.0"),
        (lambda: models.SConv(2, input_shape=(32, 32)), r"input_shape=\(32, 32\)"),
        (lambda: models.DConv(2, classes=-1), "classes=-1"),
        (lambda: models.ThreeFC(True), "hidden_units=True"),
        (lambda: models.ResNet18(kernel_size=0), "kernel_size=0"),
        (lambda: models.num_kernel_parameters("vgg", 3), "family=vgg"),
        (lambda: models.base_channels_for_budget("s_fc", 10), "num_params=10"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
