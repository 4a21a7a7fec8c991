"""What the recipes of searches run: search, then print what was found and how to use it."""

from tfconvbias.training import command_line
from tfconvbias.tuning.augmentation_search import AugmentationSearchConfig, search_augmentation
from tfconvbias.tuning.search import search
from tfconvbias.tuning.search_config import SearchConfig


def report_search(config: SearchConfig) -> None:
    """Search, print the table and the command of the best configuration."""
    results = search(config)
    if results is not None:
        print(results.table())
        print(f"All trials: {results.folder / 'results.csv'}")
        print(f"Best on validation images:\n  {results.command()}")


def report_augmentation_search(config: AugmentationSearchConfig) -> None:
    """Search a policy, print where it is and how it is used."""
    policy = search_augmentation(config)
    train = command_line.program_name("train")
    print(f"Policy: {policy}\nTrain with it:\n  {train} --augment {policy}")
