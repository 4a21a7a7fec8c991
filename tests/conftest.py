"""Shared test set-up: fixed seeds, and one table that says which tests run on which backend."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
# The tests compile much and compute little: without XLA's optimizations JAX takes half as long.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

from pathlib import Path

import keras
import pytest

TESTS = Path(__file__).parent

# Strategies are tested on four devices, which TensorFlow must know of before it computes anything;
# all that does not ask for them still runs on the first.
if keras.config.backend() == "tensorflow":
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
    )

# Whether the tests of a folder, or of a file in it, get the marker `backend`, with which
# `make test-jax` and `make test-torch` choose theirs: what a backend computes runs on each of them;
# NumPy, files, pages and whole experiments run on TensorFlow alone. A module or test of another
# folder joins with `pytest.mark.backend`; one that needs TensorFlow is marked `tensorflow` and
# skipped elsewhere.
RUNS_ON_EVERY_BACKEND = {
    ".": False,
    "analysis": True,
    "callbacks": True,
    "connectivity": False,
    "data": False,
    "embedding": True,
    "graph": True,
    "layers": True,
    "models": True,
    "models/test_presets.py": False,
    "optimizers": True,
    "plots": False,
    "recipes": False,
    "regularizers": True,
    "studies": False,
    "surgery": True,
    # Which channels go, and what they cost, is NumPy's work; `compact` is tried on each backend.
    "surgery/test_learned_architecture.py": False,
    "surgery/test_threshold.py": False,
    "training": False,
    "tuning": False,
}


def _runs_on_every_backend(path: Path) -> bool:
    parts = path.relative_to(TESTS).parts
    of_folder = RUNS_ON_EVERY_BACKEND[parts[0] if len(parts) > 1 else "."]
    return RUNS_ON_EVERY_BACKEND.get("/".join(parts), of_folder)


# First, since the choice by `-m` must see the markers.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    backend = keras.config.backend()
    skip = pytest.mark.skip(reason=f"needs the TensorFlow backend, this run uses {backend}")
    for item in items:
        if "tensorflow" in item.keywords and backend != "tensorflow":
            item.add_marker(skip)
        elif _runs_on_every_backend(item.path):
            item.add_marker(pytest.mark.backend)


@pytest.fixture(autouse=True)
def _fixed_seed():
    keras.utils.set_random_seed(1234)


@pytest.fixture(autouse=True, scope="module")
def _clear_session():
    """Free what a module's tests built; after every test it would cost 0.2 s each."""
    yield
    keras.utils.clear_session()
