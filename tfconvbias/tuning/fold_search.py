"""The folds of a policy search, one after the other: train a network, and judge candidates."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfconvbias.lazy import data
from tfconvbias.training import Deadline, RunFolder, RunResult, run
from tfconvbias.tuning.augmentation_config import AugmentationSearchConfig
from tfconvbias.tuning.candidate_rounds import (
    Candidate,
    best,
    judged_before,
    run_round,
    without_repeats,
)
from tfconvbias.tuning.proposals import Policy, Proposals
from tfconvbias.tuning.search_progress import SearchProgress

if TYPE_CHECKING:
    from tfconvbias.tuning.judge import Judge


def search_folds(
    config: AugmentationSearchConfig, dataset: data.ImageDataset, folder: RunFolder
) -> list[Candidate]:
    """The best candidates of every round of every fold, their sub-policies without repetitions.

    Args:
        config: The networks and the search.
        dataset: The images.
        folder: The search's folder.

    Raises:
        RunFolderError: If a file in the folder is damaged.
        RunPausedError: If the process was asked to stop, or the time is over.
    """
    deadline = config.run.deadline()
    before = {
        (fold, number): [
            found["reward"]
            for found in judged_before(round_file(folder.path, fold, number), config.num_candidates)
        ]
        for fold in range(config.num_folds)
        for number in range(config.num_rounds)
    }
    num_left = config.num_candidates * len(before) - sum(map(len, before.values()))
    progress = SearchProgress(config.run, config.num_candidates, num_left, config.num_folds)
    fold_of = folds(dataset.y_train, config.num_folds, config.run.seed)
    kept: list[Candidate] = []
    for fold in range(config.num_folds):
        to = folder.path / f"fold-{fold}"
        with progress.training():
            result = _train(config, dataset, fold_of == fold, to, deadline)
        judge = _Judged(config, result, dataset, np.flatnonzero(fold_of == fold))
        for number in range(config.num_rounds):
            name = f"Fold {fold}, round {number}"
            with progress.round(name, before[fold, number]):
                candidates = run_round(
                    round_file(folder.path, fold, number),
                    _proposals(config, fold, number),
                    config.num_candidates,
                    judge.rewards((fold, number), name, deadline),
                    progress.judged,
                )
            kept += [
                {
                    "fold": fold,
                    "round": number,
                    "reward": found["reward"],
                    "policy": without_repeats(found["policy"]),
                }
                for found in best(candidates, config.num_kept)
            ]
    return kept


def round_file(folder: Path, fold: int, number: int) -> Path:
    """Where the candidates of a round are kept in the search's folder."""
    return folder / f"fold-{fold}" / f"round-{number}.json"


def folds(labels: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """The fold of each image, with equal shares of the classes."""
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    fold_of = np.empty(len(labels), int)
    fold_of[by_class] = np.arange(len(labels)) % num_folds
    return fold_of


def _train(
    config: AugmentationSearchConfig,
    dataset: data.ImageDataset,
    is_held_out: np.ndarray,
    to: Path,
    deadline: Deadline,
) -> RunResult:
    """Train on the other folds; the held-out one stands for validation and test images."""
    images, labels = dataset.x_train[is_held_out], dataset.y_train[is_held_out]
    part = dataclasses.replace(
        dataset,
        x_train=dataset.x_train[~is_held_out],
        y_train=dataset.y_train[~is_held_out],
        x_validation=images,
        y_validation=labels,
        x_test=images,
        y_test=labels,
    )
    return run(config.run.replace(run_dir=str(to)), part, deadline)


def _proposals(config: AugmentationSearchConfig, fold: int, number: int) -> Proposals:
    return Proposals(
        tuple(data.OPERATIONS),
        config.num_sub_policies,
        config.num_steps,
        (config.run.seed, fold, number),
    )


class _Judged:
    """The images of a fold, judged by the network that has not seen them.

    The network is read from disk when the first candidate comes, since a search that is continued
    may have none left on this fold.
    """

    def __init__(
        self,
        config: AugmentationSearchConfig,
        result: RunResult,
        dataset: data.ImageDataset,
        held_out: np.ndarray,
    ):
        self.config = config
        self.result = result
        chosen = np.random.default_rng(config.run.seed).permutation(held_out)[: config.max_judged]
        self.images, self.labels = dataset.x_train[chosen], dataset.y_train[chosen]

    @functools.cached_property
    def judge(self) -> Judge:
        """The compiled judge."""
        from tfconvbias.tuning.judge import Judge

        network = self.result.folder.load_model(self.result.folder.last_model)
        config = self.config
        return Judge(network, config.num_sub_policies, config.num_steps, config.num_draws)

    def rewards(
        self, place: tuple[int, int], name: str, deadline: Deadline
    ) -> Callable[[int, Policy], float]:
        """The rewards of a round's candidates, whose draws depend on seed, place and number."""

        def reward(number: int, policy: Policy) -> float:
            deadline.pause_before(f"{name}, candidate {number},")
            generator = np.random.default_rng((self.config.run.seed, *place, number))
            return self.judge.reward(policy, self.images, self.labels, generator)

        return reward
