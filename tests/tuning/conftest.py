import numpy as np
import pytest

from tfconvbias.data import ImageDataset


def tiny_dataset():
    """Two classes told apart by brightness, no test images: a search has no business with them."""
    generator = np.random.default_rng(0)
    arrays = {}
    for split, size in (("train", 48), ("validation", 24), ("test", 0)):
        labels = (np.arange(size) % 2).astype("int32")
        noise = generator.integers(0, 200, (size, 6, 6, 3))
        arrays[f"x_{split}"] = (noise + 40 * labels[:, None, None, None]).astype("uint8")
        arrays[f"y_{split}"] = labels
    return ImageDataset(name="bright", class_names=("dark", "bright"), **arrays)


TINY = {
    "family": "s",
    "connectivity": "dense",
    "base_channels": 1,
    "kernel_size": 3,
    "dataset": "bright",
    "batch_size": 16,
    "epochs": 2,
    "dropout_rates": (0.0,),
    "momenta": (0.0, 0.9),
    "weight_decays": (0.0, 1e-3),
    "verbose": "silent",
    "tensorboard": False,
}


@pytest.fixture
def dataset():
    return tiny_dataset()


@pytest.fixture
def tiny(tmp_path):
    return {**TINY, "run_dir": str(tmp_path / "search")}
