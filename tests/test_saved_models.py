"""The models in saved_models/ are those of the manifest, load and answer."""

import hashlib
import json
from pathlib import Path

import keras
import numpy as np
import pytest

import tfconvbias  # noqa: F401 - registers what the models are made of

FOLDER = Path(__file__).parent.parent / "saved_models"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))


def test_every_model_is_listed():
    assert {entry["file"] for entry in MANIFEST} == {p.name for p in FOLDER.glob("*.keras")}


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: entry["file"])
def test_models_are_whole_and_load(entry):
    content = (FOLDER / entry["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    model = keras.saving.load_model(FOLDER / entry["file"])
    assert model.count_params() == entry["parameters"]
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), "uint8")
    logits = model.predict(images, verbose=0)
    assert logits.shape == (4, len(entry["classes"]))
    assert np.isfinite(logits).all()
