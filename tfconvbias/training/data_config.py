"""Which images a training sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tfconvbias.arguments import checked
from tfconvbias.lazy import data
from tfconvbias.training.config import Config, option
from tfconvbias.training.errors import ConfigError


@dataclass(frozen=True)
class DataConfig(Config):
    """The data set, what is taken of it, and the seed of all that is drawn.

    Where a folder of images lies does not decide a result: `run` compares the images themselves.

    Raises:
        ConfigError: If a value is out of its range.
    """

    section = "the images"

    dataset: str = option(
        "cifar10",
        "cifar10, cifar100, svhn, mnist, motifs10, motifs100, or a folder of images",
        decides=False,
    )
    data_dir: str | None = option(None, "where TensorFlow Datasets keeps its files", decides=False)
    image_size: int | None = option(None, "resize images to squares of this side; none: as is")
    include_extra: bool = option(False, "train on svhn's 531,131 extra images, too")
    num_train: int | None = option(None, "train on this many images, drawn by class; none: all")
    num_test: int | None = option(None, "measure on this many test images; none: all")
    subset_seed: int | None = option(
        None, "seed of the draw of images for --num-train, --num-test; none: that of --seed"
    )
    permute_pixels: int | None = option(
        None,
        "seed of one fixed permutation of all pixels, which the model applies after the "
        "augmentation; none: leave them in place",
    )
    seed: int = option(0, "seed of subsets, initial weights, batch order, augmentation and dropout")

    def __post_init__(self):
        super().__post_init__()
        self._positive("image_size", "num_train", "num_test", optional=True)
        self._seeds("seed")
        self._seeds("subset_seed", "permute_pixels", optional=True)

    @property
    def drawn_with(self) -> int:
        """The seed of the subsets."""
        return self.seed if self.subset_seed is None else self.subset_seed

    @property
    def streaming(self) -> Literal["off", "auto", "on"]:
        """Whether the images of a folder may stay in their files; never where arrays are needed."""
        return "off"


@checked
def build_dataset(config: DataConfig) -> data.ImageDataset:
    """Load the configured data set: resized and cut to subsets as asked for.

    Pixels are permuted by the model, see `data.preprocessing`.

    Raises:
        ConfigError: If there is no such data set, it has fewer images than asked for, or a folder
            of images is not as it should be.
        data.DatasetUnavailableError: If a named data set is not available.
    """
    try:
        side = config.image_size
        dataset = data.load(
            config.dataset,
            data_dir=config.data_dir,
            image_size=None if side is None else (side, side),
            include_extra=config.include_extra,
            stream=config.streaming,
        )
        dataset = dataset.limit(config.num_train, num_test=config.num_test, seed=config.drawn_with)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise ConfigError(str(error)) from error
    return dataset


@checked
def dataset_label(name: str) -> str:
    """A data set's name, or the last part of its folder."""
    return name.rstrip("/").rsplit("/", 1)[-1]
