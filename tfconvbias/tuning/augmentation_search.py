"""Find an augmentation policy by density matching on held-out folds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.lazy import data, keras
from tfconvbias.training import (
    Config,
    ConfigError,
    RunConfig,
    RunFolder,
    build_dataset,
    option,
    run,
    write_json,
)

SubPolicy = list[list[Any]]


@dataclass(frozen=True)
class AugmentationSearchConfig(Config):
    """The networks that judge candidates, and the search for a policy.

    Args:
        run: The network that is trained on each fold. Its `run_dir` is the search's folder, which
            keeps the networks and the policy, and `resume` continues the search.

    Raises:
        ConfigError: If a value is out of its range.
    """

    fixed = ("max_minutes",)

    run: RunConfig = RunConfig()

    num_folds: int = option(5, "networks, each trained on all folds but one and judging on it")
    num_rounds: int = option(2, "rounds a fold: the first at random, the others near the best")
    num_candidates: int = option(100, "sub-policies a round")
    num_kept: int = option(10, "sub-policies that a fold adds to the policy")
    num_draws: int = option(5, "augmented copies of an image, of which the best counts")
    num_steps: int = option(2, "operations of a sub-policy")
    min_probability: float = option(0.2, "least probability of an operation")
    max_judged: int = option(5000, "most images of a fold to judge on")

    def __post_init__(self):
        super().__post_init__()
        self._positive("num_rounds", "num_candidates", "num_kept", "num_draws", "num_steps")
        self._positive("max_judged")
        if self.num_folds < 2:
            raise ConfigError(f"num_folds must be at least 2. Received: {self.num_folds=}")
        if self.num_kept > self.num_candidates:
            raise ConfigError(
                f"num_kept must not exceed num_candidates={self.num_candidates}. "
                f"Received: num_kept={self.num_kept}"
            )
        if not 0 <= self.min_probability <= 1:
            raise ConfigError(
                f"min_probability must be in [0, 1]. Received: {self.min_probability=}"
            )


@checked
def search_augmentation(
    config: AugmentationSearchConfig, dataset: data.ImageDataset | None = None
) -> Path:
    """Search for a policy, and write it as JSON that `FastAutoAugment` reads.

    The training images are cut into folds of equal class shares. For each fold a network is
    trained on the others. Candidates are then applied to the fold's images, without training, and
    judged by the network's cross-entropy: a sub-policy is good when its images still look to the
    network like those it has learned from. As in the paper, of several augmented copies of an
    image the best counts, so that a wide sub-policy is not punished for its worst draws. Gentle
    sub-policies score well by nature; `min_probability` keeps them from doing nothing at all.

    Where the paper uses a tree-structured Parzen estimator, the rounds after the first draw their
    candidates near the best so far: operations change now and then, numbers a little.

    Validation and test images are not touched.

    Args:
        config: the networks and the search.
        dataset: the configured data set where the caller has loaded it already.

    Returns:
        The path of `policy.json` in the run folder; `scores.json` beside it holds the scores.

    Raises:
        ConfigError: If the images are not RGB, or a fold would have less than a batch to train on.
        RunFolderError: If a fold's folder holds another run, or this one without `resume`.
        TrainingDivergedError: If a network's loss became NaN or infinite.

    Reference:
        Lim et al., "Fast AutoAugment", 2019, section 3.
    """
    if dataset is None:
        # Policies are judged on arrays.
        dataset = build_dataset(config.run.replace(stream="off"))
    if dataset.image_shape[-1] != 3:
        raise ConfigError(
            f"Policies work on RGB images. Received: images of shape {dataset.image_shape}"
        )
    folder = Path(config.run.run_dir or f"searches/augmentation-{config.run.default_run_name()}")
    with RunFolder(folder).locked():
        found = _search_folds(config, dataset, folder)
        scores = [{"score": score, "sub_policy": part} for score, part in found]
        write_json(folder / "scores.json", scores)
        write_json(folder / "policy.json", [part for _, part in found])
    return folder / "policy.json"


def _search_folds(
    config: AugmentationSearchConfig, dataset: data.ImageDataset, folder: Path
) -> list[tuple[float, SubPolicy]]:
    """The best sub-policies of each fold, with their scores."""
    found: list[tuple[float, SubPolicy]] = []
    fold_of = _folds(dataset.y_train, config.num_folds, config.run.seed)
    for fold in range(config.num_folds):
        network, images, labels = _judge(config, dataset, fold_of == fold, folder / f"fold-{fold}")
        generator = np.random.default_rng((config.run.seed, fold))
        best = _best_sub_policies(config, network, images, labels, generator)
        found += best
        config.run.tell(
            f"fold {fold}: cross-entropy {best[0][0]:.3f} to {best[-1][0]:.3f} "
            f"with the {len(best)} best sub-policies"
        )
    return found


def _folds(labels: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """The fold of each image, with equal shares of the classes."""
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    fold_of = np.empty(len(labels), int)
    fold_of[by_class] = np.arange(len(labels)) % num_folds
    return fold_of


def _judge(
    config: AugmentationSearchConfig, dataset: data.ImageDataset, is_held_out: np.ndarray, to: Path
) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """Train on the other folds; the network, and the images and labels to judge on."""
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
    result = run(config.run.replace(run_dir=str(to)), part)
    network = result.folder.load_model(result.folder.last_model)
    order = np.random.default_rng(config.run.seed).permutation(len(images))[: config.max_judged]
    return network, images[order], labels[order]


def _best_sub_policies(
    config: AugmentationSearchConfig,
    network: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    generator: np.random.Generator,
) -> list[tuple[float, SubPolicy]]:
    best: list[tuple[float, SubPolicy]] = []
    for number in range(config.num_rounds):
        if number == 0:
            candidates = [_random(config, generator) for _ in range(config.num_candidates)]
        else:
            parents = generator.integers(0, len(best), config.num_candidates)
            candidates = [_near(best[i][1], config, generator) for i in parents]
        scores = _scores(config, network, candidates, images, labels)
        best += zip(scores, candidates, strict=True)
        best = sorted(best, key=lambda pair: pair[0])[: config.num_kept]
    return best


def _scores(
    config: AugmentationSearchConfig,
    network: keras.Model,
    candidates: list[SubPolicy],
    images: np.ndarray,
    labels: np.ndarray,
) -> list[float]:
    """Each candidate's mean over images of the smallest cross-entropy among the draws."""
    from tfconvbias.tuning.judge import Judge

    judge = Judge(network, data.FastAutoAugment(candidates, seed=config.run.seed))
    scores = []
    for number in range(len(candidates)):
        part = np.full(len(images), number, "int32")
        losses = np.full(len(images), np.inf)
        for _ in range(config.num_draws):
            logits = judge.predict([images, part], batch_size=data.EVALUATION_BATCH_SIZE, verbose=0)
            losses = np.minimum(losses, _cross_entropy(logits, labels))
        scores.append(float(losses.mean()))
    return scores


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    logits = logits.astype("float64")
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=1))
    return log_sums - shifted[np.arange(len(labels)), labels]


def _random(config: AugmentationSearchConfig, generator: np.random.Generator) -> SubPolicy:
    names = generator.choice(tuple(data.OPERATIONS), config.num_steps)
    return [
        [str(name), float(generator.uniform(config.min_probability, 1)), float(generator.random())]
        for name in names
    ]


def _near(
    parent: SubPolicy, config: AugmentationSearchConfig, generator: np.random.Generator
) -> SubPolicy:
    child = []
    for name, probability, level in parent:
        if generator.random() < 1 / (2 * config.num_steps):
            name = str(generator.choice(tuple(data.OPERATIONS)))
        probability, level = np.array([probability, level]) + generator.normal(0, 0.1, 2)
        lowest = config.min_probability
        child.append([name, min(max(probability, lowest), 1.0), min(max(level, 0.0), 1.0)])
    return [[name, float(probability), float(level)] for name, probability, level in child]
