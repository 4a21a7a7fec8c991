"""What the recipes of searches run: search, then print what was found and how to use it."""

from pathlib import Path
from typing import Any

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
from tfconvbias.tuning.augmentation_config import AugmentationSearchConfig
from tfconvbias.tuning.augmentation_search import search_augmentation
from tfconvbias.tuning.fold_search import round_file
from tfconvbias.tuning.results import SearchResults
from tfconvbias.tuning.search import search
from tfconvbias.tuning.search_config import SearchConfig

_PARTS = 10  # of a round, of which the first and the last are compared


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
    """Write the candidates that were kept, with their rewards, into the search's folder.

    Returns:
        The path of the page.
    """
    folder = policy.parent
    kept = read_json(folder / "candidates.json")
    folds = {f"fold {fold}": RunFolder(folder / f"fold-{fold}") for fold in range(config.num_folds)}
    num_kept = sum(len(found["policy"]) for found in kept)
    num_judged = config.num_folds * config.num_rounds * config.num_candidates
    return write_page(
        folder / "report.html",
        "Search for an augmentation policy",
        {"Rounds": _rounds(config, folder), "Candidates that were kept": _candidates(kept)},
        {},
        [
            "A candidate's reward is the share of images of the fold that the network classifies "
            f"rightly in at least one of {config.num_draws} copies, each augmented by one of the "
            "candidate's sub-policies; the network was not trained on these images. Rewards are "
            "compared within a fold. The plain images are classified once each, without "
            "augmentation. After an operation stand its probability and its level, which go from "
            "0 to 1. Neither validation nor test images are looked at.",
            *run_notes(folds),
        ],
        findings=[
            f"{num_kept} sub-policies, those of the {config.num_kept} best of "
            f"{config.num_candidates} candidates in each round; {num_judged} candidates were "
            "judged.",
            f"To train with them: {_training_with(policy)}",
            "Whether the policy helps, only a training with it and one without it can tell.",
        ],
        settings=config,
        folders=folds,
    )


def _rounds(config: AugmentationSearchConfig, folder: Path) -> list[dict[str, str]]:
    """One row per round: whether later candidates were better than the first ones."""
    part = max(1, config.num_candidates // _PARTS)
    rows = []
    for fold in range(config.num_folds):
        history = RunFolder(folder / f"fold-{fold}").history()
        for number in range(config.num_rounds):
            judged = read_json(round_file(folder, fold, number))
            rewards = [100 * found["reward"] for found in judged]
            rows.append(
                {
                    "fold": str(fold),
                    "round": str(number),
                    "plain images, %": f"{100 * history['val_accuracy'][-1]:.2f}",
                    f"mean of the first {part}, %": f"{sum(rewards[:part]) / part:.2f}",
                    f"mean of the last {part}, %": f"{sum(rewards[-part:]) / part:.2f}",
                    "best, %": f"{max(rewards):.2f}",
                }
            )
    return rows


def _candidates(kept: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [
        {
            "fold": str(found["fold"]),
            "round": str(found["round"]),
            "reward, %": f"{100 * found['reward']:.2f}",
            "sub-policies": "; ".join(
                ", then ".join(
                    f"{name} {probability:.2f} {level:.2f}" for name, probability, level in part
                )
                for part in found["policy"]
            ),
        }
        for found in kept
    ]


def _training_with(policy: Path) -> str:
    return f"{command_line.program_name('train')} --augment {policy}"
