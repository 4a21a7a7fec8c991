"""Shared test set-up: CPU only unless asked for, fixed seeds, tests of another backend skipped."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")

import keras
import pytest


def pytest_collection_modifyitems(items):
    backend = keras.config.backend()
    skip = pytest.mark.skip(reason=f"needs the TensorFlow backend, this run uses {backend}")
    for item in items:
        if "tensorflow" in item.keywords and backend != "tensorflow":
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _fixed_seed():
    keras.utils.set_random_seed(1234)


@pytest.fixture(autouse=True, scope="module")
def _clear_session():
    """Free what a module's tests built; after every test it would cost 0.2 s each."""
    yield
    keras.utils.clear_session()
