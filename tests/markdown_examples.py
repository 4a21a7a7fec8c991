"""Runs the Python blocks of a Markdown page, one after the other, as a reader would."""

import re
from pathlib import Path

import h5py
import numpy as np

# What trains for a minute on a page trains for seconds in a test.
QUICK = {"epochs = 12": "epochs = 1", 'load("motifs10")\n': 'load("motifs10").limit(256)\n'}


def python_blocks(page: Path) -> list[str]:
    """The Python code of a page, block by block."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run_blocks(page: Path) -> dict:
    """Run all blocks of a page in one namespace, and return it."""
    names: dict = {}
    for number, block in enumerate(python_blocks(page), start=1):
        for long, short in QUICK.items():
            block = block.replace(long, short)
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    return names


def write_weights_of_keras_2(path):
    """The file `old.h5` of the guide for Keras 2; returns the first layer's kernel."""
    kernel = np.random.default_rng(0).normal(size=(12, 12, 3, 10, 10, 8)).astype("float32")
    local = {"local/kernel:0": kernel, "local/bias:0": np.zeros((10, 10, 8))}
    dense = {"dense/kernel:0": np.zeros((800, 10)), "dense/bias:0": np.zeros(10)}
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["local", "flatten", "dense"]
        file.attrs["keras_version"], file.attrs["backend"] = "2.15.0", "tensorflow"
        for name, weights in {"local": local, "flatten": {}, "dense": dense}.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = list(weights)
            for weight, value in weights.items():
                group[weight] = value
    return kernel
