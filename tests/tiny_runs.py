"""A data set and a configuration small enough for many runs."""

import numpy as np
import pytest

from tfconvbias import data, training


@pytest.fixture
def tiny_dataset():
    generator = np.random.default_rng(0)

    def split(num):
        y = np.arange(num) % 3
        x = generator.integers(0, 120, (num, 8, 8, 3)) + 60 * (y[:, None, None, None] == 1)
        return x.astype("uint8"), y

    (x, y), (xv, yv), (xt, yt) = split(96), split(24), split(30)
    return data.ImageDataset(
        name="tiny",
        x_train=x,
        y_train=y,
        x_validation=xv,
        y_validation=yv,
        x_test=xt,
        y_test=yt,
        class_names=("a", "b", "c"),
    )


@pytest.fixture
def tiny_config(tmp_path):
    return training.RunConfig(
        base_channels=2,
        dataset="tiny",
        epochs=3,
        batch_size=32,
        augment="flip_crop",
        dropout_rate=0.2,
        run_dir=str(tmp_path / "run"),
        tensorboard=False,
        checkpoint_every=1,
        verbose="silent",
    )
