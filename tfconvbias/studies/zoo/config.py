"""Which models of the zoo to train, on which images, and where to put them."""

from dataclasses import dataclass

from tfconvbias.training import Execution, option


@dataclass(frozen=True)
class ZooConfig(Execution):
    """Which models to train; how each is trained stands in `MEMBERS`.

    Raises:
        ConfigError: If a value is out of its range.
    """

    section = "the zoo"

    only: tuple[str, ...] = option(
        (), "names of the models to train; none given: all whose images are there", decides=False
    )
    cifar10_jpeg: str | None = option(
        None,
        "folder of the JPEG copy of CIFAR-10, train/<class>/*, test/<class>/*; none: only the "
        "models of embedded images",
        decides=False,
    )
    models_dir: str = option(
        "saved_models", "folder of the models, their manifest and README", decides=False
    )
    num_train: int | None = option(None, "train on this many images; none: each model's own")
    num_test: int | None = option(None, "measure on this many test images; none: all")
    epochs: int | None = option(None, "epochs of each training; none: each model's own")
    run_dir: str = option("runs/zoo", "folder of the trainings", decides=False)

    def __post_init__(self):
        super().__post_init__()
        self._positive("num_train", "num_test", "epochs", optional=True)
