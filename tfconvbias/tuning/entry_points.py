"""What the recipes of searches call."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tfconvbias.training import command_line, entry_points
from tfconvbias.tuning.augmentation_search import AugmentationSearchConfig, search_augmentation
from tfconvbias.tuning.errors import SearchError
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
    chosen = command_line.parse(
        config,
        description=description,
        demo=demo,
        fixed=(
            *("momentum", "weight_decay", "l1", "l1_conv", "learning_rate", "dropout_rate"),
            *("checkpoint_every", "max_minutes", "device_epochs", "tensorboard"),
        ),
        argv=argv,
    )

    def work() -> None:
        try:
            results = search(chosen)
        except SearchError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from error
        if results is not None:
            print(results.table())
            print(f"All trials: {results.folder / 'results.csv'}")
            print(f"Best on validation images:\n  {results.command()}")

    entry_points.guarded(work)


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
    chosen = command_line.parse(
        config, description=description, demo=demo, fixed=("max_minutes",), argv=argv
    )

    def work() -> None:
        policy = search_augmentation(chosen)
        print(f"Policy: {policy}\nTrain with it:\n  python recipes/train.py --augment {policy}")

    entry_points.guarded(work)


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
    chosen = command_line.parse(config, description=description, demo=demo, fixed=fixed, argv=argv)

    def work() -> None:
        try:
            rows = search_sparsity(chosen)
        except SearchError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from error
        print(sparsity_search_table(rows))
        print(f"Best on validation images:\n  {sparsity_command(chosen, rows[0])}")

    entry_points.guarded(work)
