"""What a run's configuration says about its images reaches the network's first layer."""

import dataclasses

import pytest

from tfconvbias import data, training


def stages(config, dataset):
    return training.build_model(config, dataset).get_layer("preprocessing").layers


def test_crops_and_squares_have_the_sizes_of_the_configuration(tiny_config, tiny_dataset):
    config = dataclasses.replace(
        tiny_config, augment="flip_crop_cutout", crop_padding=2, cutout_length=3
    )
    layers = stages(config, tiny_dataset)
    assert [layer.padding for layer in layers if isinstance(layer, data.PadCrop)] == [2]
    assert [layer.length for layer in layers if isinstance(layer, data.Cutout)] == [3]


def test_crops_are_those_of_the_paper_by_default(tiny_config, tiny_dataset):
    config = dataclasses.replace(tiny_config, augment="flip_crop")
    layers = stages(config, tiny_dataset)
    assert [layer.padding for layer in layers if isinstance(layer, data.PadCrop)] == [4]


def test_a_negative_padding_is_refused(tiny_config):
    with pytest.raises(training.ConfigError, match="crop_padding must be a finite number"):
        dataclasses.replace(tiny_config, crop_padding=-1)
