"""Small trained models that come with the package, and the cards that say what they are."""

import dataclasses
import difflib
import hashlib
import json
from pathlib import Path
from typing import Any

import keras

from tfconvbias.arguments import checked

MANIFEST = "manifest.json"
"""The file that lists the models of a folder, one card each."""


class PresetError(ValueError):
    """A preset is unknown, of another family, or its file is missing or damaged."""


@dataclasses.dataclass(frozen=True)
class PresetCard:
    """What a trained model is, where it comes from, and what it is not good for.

    `print(card)` shows it in full. Cards are written by `recipes/zoo.py` from the run folder of the
    training, not by hand.

    Attributes:
        name: The name for `from_preset`.
        family: The function of `tfconvbias.models` that builds models of this kind.
        title: The model in a few words.
        file: Name of the `.keras` file.
        sha256: SHA-256 of the file, in hexadecimal digits.
        num_bytes: Size of the file.
        images: What it was trained on.
        num_train: Number of training images.
        input_shape: `(rows, cols, channels)` of the raw uint8 images that it takes.
        classes: Names of the classes, in the order of the logits.
        recipe: The command that trains it again.
        epochs: Passes over the training images, those of the models it started from among them.
        seed: Seed of all that was drawn.
        hardware: What it was trained on.
        seconds: How long that took.
        versions: Versions of the packages.
        figures: Measured numbers, such as `test_accuracy` and `parameters`.
        licence: What may be done with the weights, and what is known of the images.
        limits: What the model is not good for, in sentences.
        settings: The configuration of the training.
    """

    name: str
    family: str
    title: str
    file: str
    sha256: str
    num_bytes: int
    images: str
    num_train: int
    input_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    recipe: str
    epochs: int
    seed: int
    hardware: str
    seconds: float
    versions: dict[str, str]
    figures: dict[str, float]
    licence: str
    limits: tuple[str, ...]
    settings: dict[str, Any]

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "PresetCard":
        """The card that an entry of a manifest holds."""
        lists = ("input_shape", "classes", "limits")
        return cls(**{**fields, **{name: tuple(fields[name]) for name in lists}})

    def __str__(self) -> str:
        shape = "×".join(map(str, self.input_shape))
        figures = ", ".join(
            f"{name.replace('_', ' ')} {value:,}" for name, value in self.figures.items()
        )
        rows = {
            "family": self.family,
            "images": f"{self.images}, {self.num_train:,} for training",
            "input": f"raw uint8 images of {shape}; the normalisation is part of the model",
            "classes": ", ".join(self.classes),
            "figures": figures,
            "file": f"{self.file}, {self.num_bytes:,} bytes",
            "recipe": self.recipe,
            "training": f"{self.epochs} epochs, seed {self.seed}, {self.seconds:,.0f} s on "
            f"{self.hardware}",
            "licence": self.licence,
            "limits": " ".join(self.limits),
        }
        lines = [f"{self.name}: {self.title}"]
        return "\n".join([*lines, *(f"  {name:<9} {text}" for name, text in rows.items())])


@checked
def presets(family: str | None = None) -> dict[str, PresetCard]:
    """The trained models that come with the package: name → card.

    Args:
        family: Only those of this family, such as `"SConv"`; `None` for all.

    Example:
        >>> card = presets()["s_fc_beta_lasso_motifs10"]
        >>> card.family, card.input_shape
        ('SConv', (16, 16, 3))
    """
    return {
        card.name: card
        for card in read_manifest(preset_folder())
        if family is None or card.family == family
    }


@checked
def load_preset(name: str, family: str | None = None) -> keras.Model:
    """Load a trained model once its file has been checked against the manifest's SHA-256.

    Only what Keras calls safe is loaded: a file with code in it, such as a `Lambda`, is refused.

    Args:
        name: One of `presets()`.
        family: The family that it must be of; `None` for any.

    Returns:
        The model, uncompiled, from raw uint8 images to logits.

    Raises:
        PresetError: If there is no such preset, it is of another family, or its file is missing or
            not the one that the manifest describes.
    """
    known = presets()
    if name not in known:
        offered = list(presets(family))
        near = difflib.get_close_matches(str(name), offered, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise PresetError(
            f"There is no preset {name!r}{f' of {family}' if family else ''}.{hint} "
            f"Presets: {', '.join(offered) or 'none'}."
        )
    card = known[name]
    if family is not None and card.family != family:
        raise PresetError(
            f"The preset {name!r} is of another family: load it with "
            f"models.{card.family}.from_preset({name!r}). Received: family={family}"
        )
    file = preset_folder() / card.file
    check_file(file, card)
    return keras.saving.load_model(file, compile=False, safe_mode=True)


def check_file(file: Path, card: PresetCard) -> None:
    """Raise a `PresetError` that names the file, unless it is the one that the card describes."""
    if not file.is_file():
        raise PresetError(
            f"The file of the preset {card.name!r} is missing: {str(file)!r}. Install the package "
            f"again, or train the model again: {card.recipe}"
        )
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != card.sha256:
        raise PresetError(
            f"The file of the preset {card.name!r} is damaged or was replaced: {str(file)!r} has "
            f"the SHA-256 {found}, but the manifest says {card.sha256}. It was not loaded. Install "
            f"the package again, or train the model again: {card.recipe}"
        )


def preset_folder() -> Path:
    """Where the models lie: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "saved_models"
    return installed if installed.is_dir() else package.parent / "saved_models"


def read_manifest(folder: Path) -> list[PresetCard]:
    """The cards of a folder of models; none where it has no manifest.

    Raises:
        PresetError: If the manifest is damaged.
    """
    file = folder / MANIFEST
    if not file.is_file():
        return []
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return [PresetCard.from_json(entry) for entry in entries]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PresetError(f"The manifest {str(file)!r} is damaged: {error!r}") from error
