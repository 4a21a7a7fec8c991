"""What the recipes of searches call."""

from collections.abc import Mapping, Sequence
from typing import Any

from tfconvbias.training import experiment_recipe
from tfconvbias.tuning.augmentation_search import AugmentationSearchConfig, search_augmentation
from tfconvbias.tuning.search import search
from tfconvbias.tuning.search_config import SearchConfig
from tfconvbias.tuning.sparsity_search import (
    OF_SWEEPS,
    SparsitySearchConfig,
    search_sparsity,
    sparsity_command,
    sparsity_search_table,
)


def tune_recipe(
    config: SearchConfig,
    *,
    description: str | None,
    demo: Mapping[str, Any],
    argv: Sequence[str] | None = None,
) -> None:
    """Parse the options, search, print the table and the command of the best configuration.

    Args:
        config: the recipe's search.
        description: text of `--help`.
        demo: the fields that `--demo` changes.
        argv: arguments; `sys.argv[1:]` by default.
    """
    fixed = (
        *("momentum", "weight_decay", "l1", "l1_conv", "learning_rate", "dropout_rate"),
        *("checkpoint_every", "max_minutes", "device_epochs", "tensorboard"),
    )
    experiment_recipe(config, _tune, description=description, demo=demo, fixed=fixed, argv=argv)


def _tune(config: SearchConfig) -> None:
    results = search(config)
    if results is not None:
        print(results.table())
        print(f"All trials: {results.folder / 'results.csv'}")
        print(f"Best on validation images:\n  {results.command()}")


def search_augmentation_recipe(
    config: AugmentationSearchConfig,
    *,
    description: str | None,
    demo: Mapping[str, Any],
    argv: Sequence[str] | None = None,
) -> None:
    """Parse the options, search a policy, print where it is and how it is used.

    Args:
        config: the recipe's search.
        description: text of `--help`.
        demo: the fields that `--demo` changes.
        argv: arguments; `sys.argv[1:]` by default.
    """
    experiment_recipe(
        config,
        _search_augmentation,
        description=description,
        demo=demo,
        fixed=("max_minutes",),
        argv=argv,
    )


def _search_augmentation(config: AugmentationSearchConfig) -> None:
    policy = search_augmentation(config)
    print(f"Policy: {policy}\nTrain with it:\n  python recipes/train.py --augment {policy}")


def tune_sparsity_recipe(
    config: SparsitySearchConfig,
    *,
    description: str | None,
    demo: Mapping[str, Any],
    argv: Sequence[str] | None = None,
) -> None:
    """Parse the options, search (α, τ), print the trials and the command of the best one.

    Args:
        config: the recipe's search.
        description: text of `--help`.
        demo: the fields that `--demo` changes.
        argv: arguments; `sys.argv[1:]` by default.
    """
    fixed = (*OF_SWEEPS, "num_test")
    experiment_recipe(
        config, _tune_sparsity, description=description, demo=demo, fixed=fixed, argv=argv
    )


def _tune_sparsity(config: SparsitySearchConfig) -> None:
    rows = search_sparsity(config)
    print(sparsity_search_table(rows))
    print(f"Best on validation images:\n  {sparsity_command(config, rows[0])}")
