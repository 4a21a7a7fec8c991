"""The members of the zoo: what each is and how it is trained."""

from dataclasses import dataclass
from typing import NamedTuple

from tfconvbias.studies.structured_sparsity import SparsityConfig
from tfconvbias.training import DataConfig, Execution, RunConfig, option


class ImagesNote(NamedTuple):
    """What the cards say of a set of images."""

    title: str
    licence: str
    limits: str


IMAGES = {
    "motifs10": ImagesNote(
        "motifs10, procedural images of tfconvbias.data",
        "Apache-2.0, as the code that draws the images.",
        "The images are procedural: accuracies say nothing about photographs.",
    ),
    "cifar10_jpeg": ImagesNote(
        "a lossy JPEG copy of CIFAR-10",
        "The weights are under Apache-2.0. No image is redistributed here: those of CIFAR-10 "
        "(Krizhevsky, 2009) were collected from the web and carry no licence of their own.",
        "The copy is lossy, so that accuracies do not compare with published ones on CIFAR-10.",
    ),
}
"""The sets of images by the last part of the names of the models."""

SMALL = (
    "Images are resized to 16×16 and the networks are small, to keep the file below 2 MB: a "
    "model to try the tools on, not one to recognise images with. One seed was trained."
)
"""What no member is good for."""


@dataclass(frozen=True)
class EmbeddedRun(DataConfig, Execution):
    """An eFCN: a trained CNN of the zoo, embedded as a dense network, which trains on.

    Raises:
        ConfigError: If a value is out of its range.
    """

    cnn: str = option("", "name of the CNN in the zoo")
    learning_rate: float = option(0.02, "initial learning rate; it falls to 0 over all epochs")
    epochs: int = option(10, "epochs after the embedding")
    batch_size: int = option(128, "images per step")

    def __post_init__(self):
        super().__post_init__()
        self._positive("epochs", "batch_size")
        self._at_least_zero("learning_rate")


@dataclass(frozen=True)
class Member:
    """One model of the zoo.

    Attributes:
        name: Its name, which ends in the key of its images.
        title: The model in a few words.
        family: The function of `tfconvbias.models` that builds such models.
        images: A key of `IMAGES`.
        training: What trains it.
        part: Where a sweep leaves several networks: the folder of this one.
        is_sparse: Whether only weights that are not zero are stored.
    """

    name: str
    title: str
    family: str
    images: str
    training: RunConfig | EmbeddedRun | SparsityConfig
    part: str | None = None
    is_sparse: bool = False

    @property
    def work(self) -> str:
        """Name of the folder of the training, which the networks of a sweep share."""
        return self.name if self.part is None else f"resnet20_sweep_{self.images}"


def _members(
    images: str, run: RunConfig, lasso: RunConfig, efcn: EmbeddedRun, sweep: SparsityConfig
) -> list[Member]:
    family = [
        ("conv", "S-CONV", run.replace(connectivity="conv")),
        ("local", "S-LOCAL", run.replace(connectivity="local")),
        ("fc", "S-FC", run.replace(connectivity="dense")),
    ]
    members = [
        Member(f"s_{kind}_sgd_{images}", f"{title} trained with SGD", "SConv", images, training)
        for kind, title, training in family
    ]
    members.append(
        Member(
            f"s_fc_beta_lasso_{images}",
            "S-FC trained with β-LASSO, stored without its zeros",
            "SConv",
            images,
            lasso,
            is_sparse=True,
        )
    )
    members.append(
        Member(
            f"s_efcn_{images}",
            f"the S-CONV of s_conv_sgd_{images} embedded as a dense network and trained on",
            "SConv",
            images,
            efcn.replace(cnn=f"s_conv_sgd_{images}"),
        )
    )
    points = ["base", *(f"alpha-{alpha:g}/tau-0" for alpha in sweep.alphas)]
    labels = ["", *(f"_sparse{number}" for number in range(1, len(points)))]
    titles = [
        "ResNet-20 of half the width, the start of a sparsity path",
        *(
            f"point {number} of the path from resnet20_{images}: fewer channels, found by "
            f"structured sparsity with α = {alpha:g}"
            for number, alpha in enumerate(sweep.alphas, start=1)
        ),
    ]
    members += [
        Member(f"resnet20{label}_{images}", title, "StructuredBase", images, sweep, part=part)
        for label, title, part in zip(labels, titles, points, strict=True)
    ]
    return members


_RUN = RunConfig(
    image_size=16,
    base_channels=6,
    batch_size=128,
    momentum=0.0,
    tensorboard=False,
    epochs=20,
)
_SWEEP = SparsityConfig(
    image_size=16,
    width=0.5,
    batch_size=128,
    uniform_widths=(),
    random_widths=0,
    epochs=16,
    sparse_epochs=6,
    fine_tune_epochs=4,
)

_MOTIFS = _members(
    "motifs10",
    _RUN,
    _RUN.replace(
        connectivity="dense", optimizer="beta_lasso", epochs=30, l1=1e-3, l1_conv=1e-3, beta=5.0
    ),
    EmbeddedRun(image_size=16),
    _SWEEP.replace(augment="none", alphas=(0.1, 0.14)),
)
_CIFAR_RUN = _RUN.replace(augment="flip_crop", epochs=30)
_CIFAR = _members(
    "cifar10_jpeg",
    _CIFAR_RUN,
    _CIFAR_RUN.replace(
        connectivity="dense", optimizer="beta_lasso", l1=2.5e-5, l1_conv=1e-4, beta=20.0
    ),
    EmbeddedRun(image_size=16),
    _SWEEP.replace(
        num_train=10_000,
        epochs=10,
        sparse_epochs=4,
        fine_tune_epochs=3,
        alphas=(0.12, 0.18),
    ),
)

MEMBERS = {member.name: member for member in [*_MOTIFS, *_CIFAR]}
"""The models of the zoo by name."""
