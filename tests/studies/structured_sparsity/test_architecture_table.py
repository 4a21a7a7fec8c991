import itertools

import keras
import numpy as np
import pytest

from tfconvbias.studies import structured_sparsity
from tfconvbias.studies.structured_sparsity.googlenet import GoogLeNet


def test_depth_is_the_longest_way():
    inputs = keras.Input((8, 8, 4))
    x = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    x = keras.layers.ReLU()(keras.layers.Conv2D(4, 3, padding="same")(x))
    x = keras.layers.Add()([x, keras.layers.Conv2D(4, 1)(inputs)])
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))
    assert structured_sparsity.network_depth(keras.Model(inputs, outputs)) == 3


def test_googlenet_is_the_published_one():
    network = GoogLeNet()
    assert network.count_params() == 6_998_552  # of the network that Caffe distributes
    assert structured_sparsity.network_depth(network) == 22
    assert network.get_layer("inception_4e").output.shape[1:] == (14, 14, 832)


@pytest.mark.parametrize("groups", ["half_ring", "ring"])
def test_groups_grow_from_the_outside(groups):
    supports = structured_sparsity.group_supports(5, groups)
    sizes = [5 - n for n in range(1, 6)] if groups == "half_ring" else [3, 1, 0]
    assert [group.sum() for group in supports] == [25 - size**2 for size in sizes]
    for smaller, larger in itertools.pairwise(supports):
        assert (larger >= smaller).all()
    # The first half-ring is the top-left row and column, the first ring the whole border.
    expected = np.zeros((5, 5), bool)
    expected[0] = expected[:, 0] = True
    if groups == "ring":
        expected[-1] = expected[:, -1] = True
    np.testing.assert_array_equal(supports[0], expected)


@pytest.mark.slow
def test_the_tables_and_the_figure_are_reported(tmp_path, capsys):
    config = structured_sparsity.ArchitectureTable(("AlexNet",), run_dir=str(tmp_path))
    structured_sparsity.report_architectures(config)
    shown = capsys.readouterr().out
    assert "60,965,224" in shown  # Krizhevsky's network with its two groups
    assert "(16, 3)×7, (32, 3)×6, (64, 3)×6" in shown
    assert (tmp_path / "figures" / "groups.png").exists()
    row = structured_sparsity.architecture_row("GoogLeNet")
    assert 1.5e9 < int(row["multiply-adds"].replace(",", "")) < 1.6e9
