"""What `tcb list` shows."""

from collections.abc import Iterator
from pathlib import Path

from tfconvbias.commands.names import CommandError
from tfconvbias.commands.recipe_files import recipe_files, summary
from tfconvbias.lazy import data, models
from tfconvbias.text_table import format_table
from tfconvbias.training import RunFolderError, table
from tfconvbias.training.run_folder import RunFolder

TOPICS = ("recipes", "models", "presets", "datasets", "runs")


def listing(topics: tuple[str, ...], folder: Path) -> Iterator[str]:
    """The paragraphs of `tcb list`.

    Args:
        topics: Some of `TOPICS`.
        folder: Where to look for runs.

    Raises:
        CommandError: If runs are asked for and there is no such folder.
    """
    if "recipes" in topics:
        yield _paragraph("Recipes", {n: summary(file) for n, file in recipe_files().items()})
    if "models" in topics:
        yield _paragraph("Models", _models())
    if "presets" in topics:
        yield _paragraph("Presets", _presets())
    if "datasets" in topics:
        yield _paragraph("Data sets", _datasets())
    if "runs" in topics:
        yield _runs(folder)


def _paragraph(heading: str, lines: dict[str, str]) -> str:
    width = max(map(len, lines))
    return "\n".join([heading, *(f"  {name:<{width}}  {text}" for name, text in lines.items())])


def _models() -> dict[str, str]:
    found = {}
    for name in models.__all__:
        builder = getattr(models, name)
        if name[0].isupper() and callable(builder) and not isinstance(builder, type):
            found[name] = (builder.__doc__ or "").strip().partition("\n")[0]
    return found


def _presets() -> dict[str, str]:
    found = {}
    for name, card in models.presets().items():
        right = f"{100 * card.figures['test_accuracy']:.2f} % of the test images right"
        found[name] = f"{card.title}; {card.images}, {right}"
    return found


def _datasets() -> dict[str, str]:
    lines = {}
    for name in data.DATASET_NAMES:
        embedded = name.startswith("motifs")
        lines[name] = "embedded, offline" if embedded else "by TensorFlow Datasets, downloaded once"
    return lines | {"FOLDER": "your own images, as train/<class>/* and test/<class>/*"}


def check_folder(name: str, hint: str = "") -> None:
    """Refuse what is no folder.

    Args:
        name: Its path.
        hint: What to add where there is nothing of that name.

    Raises:
        CommandError: If it does not exist, or is a file.
    """
    if Path(name).is_file():
        raise CommandError(f"{name!r} is a file, not a folder.")
    if not name or not Path(name).is_dir():
        raise CommandError(f"There is no folder {name!r}.{hint}")


def run_folders(folder: Path) -> list[RunFolder]:
    """The folders of runs in a folder, at any depth, finished or not.

    Raises:
        CommandError: If there is no such folder.
    """
    check_folder(str(folder))
    return [RunFolder(file.parent) for file in sorted(folder.rglob("config.json"))]


def _row(run: RunFolder, network: str = "–", test: str = "–", *, state: str) -> dict[str, str]:
    return {"folder": str(run.path), "network": network, "test, %": test, "state": state}


def _runs(folder: Path) -> str:
    if not folder.is_dir() and folder == Path("runs"):
        return "Runs\n  none: there is no folder runs/ here"
    rows = []
    for run in run_folders(folder):
        try:
            row, epochs = run.result(), len(run.history().get("epoch", []))
        except RunFolderError:
            rows.append(_row(run, state="damaged"))
            continue
        is_run = row is not None and {"model", "test_accuracy", "optimizer"} <= row.keys()
        state = "finished" if row is not None else f"after epoch {epochs}"
        if row is not None and is_run:
            shown = table.label(row), table.percent(row["test_accuracy"])
            rows.append(_row(run, *shown, state=state))
        else:
            rows.append(_row(run, state=state))
    if not rows:
        return f"Runs\n  none in {folder}"
    return "Runs\n" + format_table(rows, markdown=False)
