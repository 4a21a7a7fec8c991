"""From a finished training to a small file, a card in the manifest and a row in the README."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tfconvbias.lazy import analysis, data, keras, models
from tfconvbias.studies.zoo.members import IMAGES, SMALL, Member
from tfconvbias.training import Config, RecipeError, RunFolder, replacing, write_text

MAX_BYTES = 2_000_000
"""Largest file of a model: all of them travel with the package."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """A member's model and where it comes from.

    Attributes:
        member: The member.
        model: Its model, uncompiled.
        folder: The run folder of its training.
        training: The resolved configuration.
        epochs: Passes over the training images, those of the models it started from among them.
        earlier: The run folders of the models it started from.
    """

    member: Member
    model: keras.Model
    folder: RunFolder
    training: Config
    epochs: int
    earlier: tuple[RunFolder, ...] = ()


class TooLargeError(RecipeError, ValueError):
    """A model's file is larger than the package allows."""


def publish(
    trained: Trained, dataset: data.ImageDataset, models_dir: str | Path
) -> models.PresetCard:
    """Write a model's file and its card, and enter the card in the manifest.

    What the card says of accuracy is measured with the file, once it has been read again.

    Args:
        trained: From `train_member`.
        dataset: The images of the training.
        models_dir: The folder of the models.

    Returns:
        The card.

    Raises:
        TooLargeError: If the file is larger than `MAX_BYTES`.
    """
    folder = Path(models_dir)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{trained.member.name}.keras"
    with replacing(file) as unfinished:
        trained.model.save(unfinished)
        _compress(unfinished)
        size = unfinished.stat().st_size
        if size > MAX_BYTES:
            unfinished.unlink()
            raise TooLargeError(
                f"The file of {trained.member.name} has {size:,} bytes, more than {MAX_BYTES:,}."
            )
    card = _card(trained, dataset, file)
    others = [
        other for other in models.preset_files.read_manifest(folder) if other.name != card.name
    ]
    cards = sorted([*others, card], key=lambda one: one.name)
    write_manifest(folder, cards)
    return card


def _compress(file: Path) -> None:
    """Deflate the parts of a `.keras` file, which Keras stores as they are."""
    with zipfile.ZipFile(file) as stored:
        parts = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as smaller:
        for name, content in parts.items():
            smaller.writestr(name, content)


def _card(trained: Trained, dataset: data.ImageDataset, file: Path) -> models.PresetCard:
    member, folder = trained.member, trained.folder
    content = file.read_bytes()
    model = keras.saving.load_model(file, compile=False)
    surroundings = folder.environment()
    histories = [one.history() for one in (*trained.earlier, folder)]
    note = IMAGES[member.images]
    return models.PresetCard(
        name=member.name,
        family=member.family,
        title=member.title,
        file=file.name,
        sha256=hashlib.sha256(content).hexdigest(),
        num_bytes=len(content),
        images=note.title,
        num_train=len(dataset.x_train),
        input_shape=dataset.image_shape,
        classes=dataset.class_names,
        recipe=_command(member),
        epochs=trained.epochs,
        seed=trained.training.identity()["seed"],
        hardware=surroundings["hardware"],
        seconds=round(sum(sum(history["seconds"]) for history in histories), 1),
        versions=surroundings["versions"],
        figures=_figures(model, folder, dataset),
        licence=note.licence,
        limits=(note.limits, SMALL),
        settings={**_settings(trained), "backend": surroundings["backend"]},
    )


def _figures(model: keras.Model, folder: RunFolder, dataset: data.ImageDataset) -> dict[str, float]:
    images, labels = dataset.split("test")
    logits = model.predict(images, batch_size=data.EVALUATION_BATCH_SIZE, verbose=0)
    row = folder.result() or {}
    found = {
        "test_accuracy": round(float(np.mean(np.argmax(logits, axis=-1) == labels)), 4),
        "num_test": len(labels),
        "train_accuracy": round(row["train_accuracy"], 4),
        "parameters": model.count_params(),
        "nonzeros": sum(analysis.num_nonzeros(model).values()),
    }
    if "multiply_adds" in row:
        # A sweep's networks are points of accuracy against multiply-adds.
        found["multiply_adds"] = row["multiply_adds"]
    return found


def _settings(trained: Trained) -> dict[str, Any]:
    """What decided the training, as its folder, or that of its sweep, holds it."""
    identity = trained.training.identity()
    return json.loads(json.dumps(identity))


def _command(member: Member) -> str:
    images = " --cifar10-jpeg FOLDER" if member.images == "cifar10_jpeg" else ""
    return f"python recipes/zoo.py --only {member.name}{images}"


def write_manifest(folder: Path, cards: list[models.PresetCard]) -> None:
    """Write the manifest of a folder of models."""
    entries = [dataclasses.asdict(card) for card in cards]
    text = json.dumps(entries, indent=1, ensure_ascii=False)
    write_text(folder / models.preset_files.MANIFEST, text + "\n")


def write_readme(models_dir: str | Path) -> None:
    """Write the README of a folder of models from its manifest."""
    folder = Path(models_dir)
    write_text(folder / "README.md", readme(models.preset_files.read_manifest(folder)))


def readme(cards: list[models.PresetCard]) -> str:
    """The text of the README: how to load a model, and one table row for each.

    Args:
        cards: Of a manifest.
    """
    rows = [
        "| name | test accuracy | parameters | not zero | multiply-adds | kB | images |",
        "|---|---|---|---|---|---|---|",
    ]
    for card in cards:
        found = card.figures
        cost = f"{found['multiply_adds']:,}" if "multiply_adds" in found else ""
        rows.append(
            f"| `{card.name}` | {100 * found['test_accuracy']:.2f} % | {found['parameters']:,} | "
            f"{found['nonzeros']:,} | {cost} | {card.num_bytes / 1000:,.0f} | {card.images} |"
        )
    titles = [f"- `{card.name}`: {card.title}." for card in cards]
    licences = dict.fromkeys(f"- {card.images}: {card.licence} {card.limits[0]}" for card in cards)
    return "\n".join(
        [
            "# Saved models",
            "",
            "Small trained models that come with the package. `recipes/zoo.py` trains all of them "
            "and writes this page and `manifest.json` from the run folders; do not edit either by "
            "hand.",
            "",
            "```python",
            "import tfconvbias as tcb",
            "",
            "print(tcb.models.presets()[NAME])  # images, recipe, figures, licence, limits",
            "model = tcb.models.SConv.from_preset(NAME)  # its SHA-256 is checked first",
            "logits = model.predict(images)  # raw uint8 images (batch, 16, 16, 3)",
            "```",
            "",
            "Models whose name begins with `resnet20` come from "
            "`tcb.models.StructuredBase.from_preset`.",
            "",
            *rows,
            "",
            SMALL,
            "",
            *titles,
            "",
            "Licences and limits:",
            "",
            *licences,
            "",
        ]
    )
