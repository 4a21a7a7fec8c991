import keras
import numpy as np
import pytest

from tfconvbias.embedding import embed, embedded_size
from tfconvbias.models import AlexNet, VanillaCNN, load_channels_first_weights

COUNTS = [
    (VanillaCNN, 10, 143_178, 7_797_002, 110_606_602, 73_952_522),
    (AlexNet, 10, 2_848_906, 40_229_834, 239_049_674, 126_832_586),
    (AlexNet, 100, 2_895_076, 40_276_004, 239_095_844, 126_878_756),
]


@pytest.mark.parametrize(("build", "classes", "conv", "local", "explicit", "folded"), COUNTS)
def test_parameter_counts(build, classes, conv, local, explicit, folded):
    model = build(classes=classes)
    assert model.count_params() == conv
    assert embedded_size(model, "local").num_parameters == local
    assert embedded_size(model, "dense", "explicit").num_parameters == explicit
    assert embedded_size(model, "dense", "folded").num_parameters == folded


def test_vanilla_nonzeros_of_the_embedding():
    names = ("conv1", "conv2", "conv3")
    model = VanillaCNN()
    embedded = embed(model)
    found = [
        np.count_nonzero(keras.ops.convert_to_numpy(embedded.get_layer(n).kernel)) for n in names
    ]
    assert found == [786_432, 4_734_976, 200_704]
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    first, second = (keras.ops.convert_to_numpy(m(x)) for m in (model, embedded))
    assert np.abs(first - second).max() <= 1e-5
    del embedded
    explicit = embed(model, padding="explicit", layers=["conv2", "conv3"])
    found = [
        np.count_nonzero(keras.ops.convert_to_numpy(explicit.get_layer(n).kernel)) for n in names
    ]
    assert found == [4 * 4 * 3 * 64, 6_553_600, 331_776]


def test_volumes():
    model = VanillaCNN()
    sizes = [
        model.get_layer(f"conv{i}{part}").output.shape[1]
        for i in (1, 2, 3)
        for part in ("", "_pool")
    ]
    assert sizes == [17, 8, 8, 3, 3, 1]
    smallest = VanillaCNN(filters=2, input_shape=(28, 28, 1))
    assert smallest.get_layer("conv3_pool").output.shape[1:3] == (1, 1)
    assert AlexNet(input_shape=(28, 28, 1)).get_layer("conv5_pool").output.shape[1:3] == (1, 1)
    model = AlexNet()
    assert model.get_layer("conv5_pool").output.shape[1:] == (1, 1, 256)


@pytest.mark.parametrize("build", [VanillaCNN, AlexNet])
def test_initialization(build):
    model = build()
    for layer in model.layers:
        if not layer.weights:
            continue
        limit = 1 / np.sqrt(np.prod(layer.kernel.shape[:-1]))
        kernel, bias = layer.get_weights()
        for values in (kernel, bias):
            assert np.abs(values).max() <= limit * (1 + 1e-6)
        assert np.abs(bias).max() > 0.5 * limit
        np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=0.1)
    for bias in build(initialization="keras").get_layer("conv1").get_weights()[1:]:
        assert not bias.any()


def test_saves_and_reloads(tmp_path):
    preprocessing = keras.layers.Rescaling(1 / 255)
    model = VanillaCNN(filters=4, preprocessing=preprocessing)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).integers(0, 256, size=(2, 32, 32, 3)).astype("uint8")
    np.testing.assert_array_equal(model.predict(x, verbose=0), again.predict(x, verbose=0))
    assert model.inputs[0].dtype == "uint8"


def test_errors():
    with pytest.raises(ValueError, match="28×28"):
        VanillaCNN(input_shape=(27, 32, 3))
    with pytest.raises(ValueError, match="initialization"):
        AlexNet(initialization="zeros")
    with pytest.raises(ValueError, match="classes"):
        VanillaCNN(classes=0)
    with pytest.raises(ValueError, match="dropout_rate"):
        AlexNet(dropout_rate=1.0)


def test_channels_first_weights():
    torch = pytest.importorskip("torch")
    from torch import nn

    # 48×48 images leave 2×2 positions to the head, whose inputs are numbered channels first there.
    torch.manual_seed(0)
    peer = nn.Sequential(
        nn.Conv2d(3, 4, 4, 2, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(4, 4, 5, 1, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(4, 4, 3, 1, 1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        nn.Linear(4 * 4, 10),
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 48, 48)).astype("float32")
    with torch.no_grad():
        expected = peer(torch.from_numpy(x)).numpy()
    weights = {name: value.numpy() for name, value in peer.state_dict().items()}
    model = VanillaCNN(filters=4, input_shape=(48, 48, 3))
    load_channels_first_weights(model, weights)
    got = keras.ops.convert_to_numpy(model(np.moveaxis(x, 1, -1)))
    np.testing.assert_allclose(got, expected, atol=1e-5)

    with pytest.raises(ValueError, match="4 layers"):
        load_channels_first_weights(model, list(weights.values())[:-1])
    with pytest.raises(ValueError, match="'conv1' must have shape"):
        load_channels_first_weights(model, list(weights.values())[::-1])
