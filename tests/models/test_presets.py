"""The presets are those of the manifest, whole and small; what is damaged is refused by name."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from tfconvbias import data, models
from tfconvbias.models import PresetError
from tfconvbias.models.preset_files import preset_folder

FOLDER = Path(__file__).parent.parent.parent / "saved_models"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
SPARSE = "s_fc_beta_lasso_motifs10"


def entry(name):
    return next(entry for entry in MANIFEST if entry["name"] == name)


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A folder of the manifest and one model, which a test may damage."""
    for name in ("manifest.json", f"{SPARSE}.keras"):
        shutil.copy(FOLDER / name, tmp_path)
    monkeypatch.setattr("tfconvbias.models.preset_files.preset_folder", lambda: tmp_path)
    return tmp_path


def test_the_manifest_lists_the_files():
    assert preset_folder() == FOLDER
    assert {entry["file"] for entry in MANIFEST} == {p.name for p in FOLDER.glob("*.keras")}
    assert list(models.presets()) == [entry["name"] for entry in MANIFEST]
    for entry in MANIFEST:
        content = (FOLDER / entry["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], entry["file"]
        assert len(content) == entry["num_bytes"] <= 2_000_000, entry["file"]
    assert sum(entry["num_bytes"] for entry in MANIFEST) < 25_000_000


def test_families():
    assert set(models.SConv.presets()) | set(models.StructuredBase.presets()) == set(
        models.presets()
    )
    assert set(models.presets("SConv")) == {
        entry["name"] for entry in MANIFEST if entry["name"].startswith("s_")
    }
    assert models.AlexNet.presets() == {}


def test_a_card_says_what_one_needs_to_know():
    text = str(models.presets()[SPARSE])
    found = entry(SPARSE)
    for part in (
        "raw uint8 images of 16×16×3",
        f"test accuracy {found['figures']['test_accuracy']}",
        f"python recipes/zoo.py --only {SPARSE}",
        f"seed {found['seed']}",
        found["hardware"],
        "Apache-2.0",
        "procedural",
    ):
        assert part in text


@pytest.mark.backend
def test_a_preset_answers():
    model = models.SConv.from_preset(SPARSE)
    found = entry(SPARSE)
    assert not model.compiled
    assert model.count_params() == found["figures"]["parameters"]
    images = np.random.default_rng(0).integers(0, 256, (4, *found["input_shape"]), "uint8")
    logits = model.predict(images, verbose=0)
    assert logits.shape == (4, len(found["classes"]))
    assert np.isfinite(logits).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [entry["name"] for entry in MANIFEST if "motifs10" in entry["name"]]
)
def test_embedded_images_give_the_accuracy_on_the_card(name):
    found = entry(name)
    model = models.load_preset(name)
    images = data.load("motifs10", image_size=tuple(found["input_shape"][:2]))
    logits = model.predict(images.x_test, batch_size=500, verbose=0)
    accuracy = np.mean(np.argmax(logits, axis=-1) == images.y_test)
    assert abs(accuracy - found["figures"]["test_accuracy"]) < 0.002


def test_unknown_names_and_other_families():
    with pytest.raises(PresetError, match=f"no preset 's_fc_beta_laso_motifs10'.*mean.*{SPARSE}"):
        models.load_preset("s_fc_beta_laso_motifs10")
    with pytest.raises(PresetError, match=r"no preset 'x' of AlexNet\. Presets: none"):
        models.AlexNet.from_preset("x")
    with pytest.raises(PresetError, match=re.escape(f"models.SConv.from_preset('{SPARSE}')")):
        models.ResNet18.from_preset(SPARSE)


def test_a_damaged_file_is_named_and_not_loaded(copied, monkeypatch):
    file = copied / f"{SPARSE}.keras"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(PresetError, match=f"{SPARSE}.keras.*{entry(SPARSE)['sha256']}"):
        models.SConv.from_preset(SPARSE)
    file.unlink()
    with pytest.raises(PresetError, match=f"is missing: .*{SPARSE}.keras"):
        models.SConv.from_preset(SPARSE)


def test_code_in_a_file_is_refused_even_if_the_manifest_lists_it(copied):
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs))
    file = copied / f"{SPARSE}.keras"
    model.save(file)
    changed = {**entry(SPARSE), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (copied / "manifest.json").write_text(json.dumps([changed]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"[Ll]ambda"):
        models.SConv.from_preset(SPARSE)


@pytest.mark.parametrize(
    "content",
    ["[{}]", "[1]", "1", "[", "[" * 100_000],
    ids=["no fields", "a number for a card", "a number", "cut short", "too deep"],
)
def test_a_damaged_manifest_is_named(copied, content):
    (copied / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(PresetError, match=r"manifest.*manifest\.json' is damaged"):
        models.presets()
