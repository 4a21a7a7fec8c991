"""What the recipes of searches run: search, then print what was found and how to use it."""

from pathlib import Path

from tfconvbias.arguments import checked
from tfconvbias.lazy import plots
from tfconvbias.training import Figures, command_line, config_note, write_page
from tfconvbias.tuning.augmentation_search import AugmentationSearchConfig, search_augmentation
from tfconvbias.tuning.results import SearchResults
from tfconvbias.tuning.search import search
from tfconvbias.tuning.search_config import SearchConfig


@checked
def report_search(config: SearchConfig) -> None:
    """Search, print the table and the command of the best configuration, and write the page."""
    results = search(config)
    if results is not None:
        page = write_search_report(config, results)
        print(results.table())
        print(f"All trials: {results.folder / 'results.csv'}")
        print(f"Best on validation images:\n  {results.command()}")
        print(f"Report: {page}")


def write_search_report(config: SearchConfig, results: SearchResults) -> Path:
    """Write the best trial, its command and all trials into the search's folder.

    Returns:
        The path of the page.
    """
    best, trials = results.rows[0], results.table_rows()
    figures: Figures = {}
    done = [row for row in results.rows if row["status"] == "COMPLETED"]
    if all(row["nonzero_share"] is not None for row in done):
        share = "non-zero weights, %"
        points = {share: [100 * row["nonzero_share"] for row in done]}
        accuracies = [100 * row["val_accuracy"] for row in done]
        names = [row["trial"] for row in done]
        series = plots.Series("trials", points, accuracies, "points", names)
        figures["trials"] = (
            "Validation accuracy against the share of weights that are not zero; each label is a "
            "trial.",
            plots.accuracy_frontier([series], accuracy="validation accuracy, %"),
        )
    return write_page(
        results.folder / "report.html",
        "Search",
        {"Trials, best first": trials},
        figures,
        [
            "Trials are judged on validation images. A star marks those than which none is both "
            "more accurate and sparser.",
            config_note(config),
        ],
        findings=[
            f"Best of {len(done)} finished trials: trial {best['trial']}, "
            f"{100 * best['val_accuracy']:.2f} % of the validation images.",
            f"To train and test it: {results.command()}",
        ],
        command=command_line.typed_command(),
    )


@checked
def report_augmentation_search(config: AugmentationSearchConfig) -> None:
    """Search a policy, print where it is and how it is used."""
    policy = search_augmentation(config)
    train = command_line.program_name("train")
    print(f"Policy: {policy}\nTrain with it:\n  {train} --augment {policy}")
