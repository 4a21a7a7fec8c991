"""What the recipes of searches run: search, then print what was found and how to use it."""

from pathlib import Path

from tfconvbias.arguments import checked
from tfconvbias.lazy import plots
from tfconvbias.training import (
    Figures,
    RunFolder,
    command_line,
    read_json,
    run_notes,
    write_page,
)
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
        ],
        findings=[
            f"Best of {len(done)} finished trials: trial {best['trial']}, "
            f"{100 * best['val_accuracy']:.2f} % of the validation images.",
            f"To train and test it: {results.command()}",
        ],
        settings=config,
        folders={"the search": RunFolder(results.folder)},
    )


@checked
def report_augmentation_search(config: AugmentationSearchConfig) -> None:
    """Search a policy, print where it is and how it is used."""
    policy = search_augmentation(config)
    page = write_augmentation_report(config, policy)
    print(f"Report: {page}\nPolicy: {policy}\nTrain with it:\n  {_training_with(policy)}")


def write_augmentation_report(config: AugmentationSearchConfig, policy: Path) -> Path:
    """Write the sub-policies that were kept, with their scores, into the search's folder.

    Returns:
        The path of the page.
    """
    scores = read_json(policy.parent / "scores.json")
    folds = {
        f"fold {fold}": RunFolder(policy.parent / f"fold-{fold}")
        for fold in range(config.num_folds)
    }
    rows = [
        {
            "fold": str(index // config.num_kept),
            "sub-policy": ", then ".join(
                f"{name} (probability {probability:.2f}, level {level:.2f})"
                for name, probability, level in found["sub_policy"]
            ),
            "cross-entropy": f"{found['score']:.4f}",
        }
        for index, found in enumerate(scores)
    ]
    best = min(scores, key=lambda found: found["score"])
    tried = config.num_rounds * config.num_candidates
    return write_page(
        policy.parent / "report.html",
        "Search for an augmentation policy",
        {"Sub-policies of the policy": rows},
        {},
        [
            "A sub-policy is judged by the cross-entropy of a network on augmented images of the "
            "fold that it was not trained on: the smaller, the more the images still look like "
            "those it has learned from. A level goes from 0 to 1. Neither validation nor test "
            "images are looked at.",
            *run_notes(folds),
        ],
        findings=[
            f"The {config.num_kept} best of {tried} sub-policies of each of {config.num_folds} "
            f"folds; the very best has a cross-entropy of {best['score']:.4f}.",
            f"To train with them: {_training_with(policy)}",
            "Whether the policy helps, only a training with it and one without it can tell.",
        ],
        settings=config,
        folders=folds,
    )


def _training_with(policy: Path) -> str:
    return f"{command_line.program_name('train')} --augment {policy}"
