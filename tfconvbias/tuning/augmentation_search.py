"""Find an augmentation policy by density matching on held-out folds."""

from __future__ import annotations

from pathlib import Path

from tfconvbias.arguments import checked
from tfconvbias.lazy import data
from tfconvbias.optional import require
from tfconvbias.training import (
    ConfigError,
    RunFolder,
    build_dataset,
    with_precision,
    write_json,
)
from tfconvbias.tuning.augmentation_config import AugmentationSearchConfig
from tfconvbias.tuning.fold_search import search_folds


@checked
def search_augmentation(
    config: AugmentationSearchConfig, dataset: data.ImageDataset | None = None
) -> Path:
    """Search for a policy, and write it as JSON that `FastAutoAugment` reads.

    The training images are cut into folds of equal class shares. For each fold a network is
    trained on the others. Candidates are then applied to the fold's images, without training: each
    copy of an image draws one of the candidate's sub-policies, and then what the network was
    trained with, such as crop and flip. A candidate's reward is the share of the images of which
    the network classifies at least one copy rightly, so that a wide policy is not punished for its
    worst draws. A tree-structured Parzen estimator proposes candidates that are like those of high
    reward. The sub-policies of each round's best candidates are the policy; of sub-policies of one
    candidate that name the same operations in the same order the first is kept.

    Two things differ from the authors' program. Folds do not overlap, where the program draws 40 %
    of the images anew for each network. And candidates are judged one by one, so that the
    estimator knows all rewards before, where the program judges up to 80 at a time.

    Validation and test images are not touched. Each judged candidate is written to disk, and a
    search that was killed goes on after it; the policy is the same as without the interruption.

    Args:
        config: the networks and the search.
        dataset: the configured data set where the caller has loaded it already.

    Returns:
        The path of `policy.json` in the run folder; `candidates.json` beside it holds the kept
        candidates with their rewards.

    Raises:
        ConfigError: If the images are not RGB, or a fold would have less than a batch to train on.
        MissingPackageError: If Optuna is not installed.
        RunFolderError: If the folder holds another search, or this one without `resume`, or a file
            in it is damaged.
        RunPausedError: If the process was asked to stop, or the time is over.
        TrainingDivergedError: If a network's loss became NaN or infinite.

    Reference:
        Lim et al., "Fast AutoAugment", 2019, section 3, and the authors' program `search.py`.
    """
    require("optuna", "policies", "A search for a policy")
    if dataset is None:
        # Policies are judged on arrays.
        dataset = build_dataset(config.run.replace(stream="off"))
    config = config.replace(run=with_precision(config.run))
    _check(config, dataset)
    folder = RunFolder(
        config.run.run_dir or f"searches/augmentation-{config.run.default_run_name()}"
    )
    is_claimed = folder.check(config, config.run.resume, dataset, "search")
    with folder.locked():
        if not is_claimed:
            folder.claim(config, dataset)
        kept = search_folds(config, dataset, folder)
        write_json(folder.path / "candidates.json", kept)
        policy = [part for found in kept for part in found["policy"]]
        write_json(folder.path / "policy.json", policy)
    return folder.path / "policy.json"


def _check(config: AugmentationSearchConfig, dataset: data.ImageDataset) -> None:
    if dataset.image_shape[-1] != 3:
        raise ConfigError(
            f"Policies work on RGB images. Received: images of shape {dataset.image_shape}"
        )
    num_train = len(dataset.y_train)
    least = num_train - -(-num_train // config.num_folds)
    if num_train < config.num_folds or least < config.run.batch_size:
        raise ConfigError(
            f"{num_train} training images in {config.num_folds} folds leave {least} to train on, "
            f"less than a batch. Received: batch_size={config.run.batch_size}, "
            f"num_folds={config.num_folds}"
        )
