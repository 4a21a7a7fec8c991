"""The small trained models that come with the package, and how they are trained."""

from tfconvbias.studies.zoo.cards import MAX_BYTES, Trained, publish, readme, write_readme
from tfconvbias.studies.zoo.config import ZooConfig
from tfconvbias.studies.zoo.members import IMAGES, MEMBERS, EmbeddedRun, Member
from tfconvbias.studies.zoo.train import train_member, train_zoo

__all__ = [
    "IMAGES",
    "MAX_BYTES",
    "MEMBERS",
    "EmbeddedRun",
    "Member",
    "Trained",
    "ZooConfig",
    "publish",
    "readme",
    "train_member",
    "train_zoo",
    "write_readme",
]
