"""Tasks that other processes import: each leaves a file in the folder that stands for its run's."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tfconvbias import training


@dataclass(frozen=True)
class Errand(training.Kept):
    """What the tasks are done with."""


def note(place, config, *, name, reads=()):
    """Write how often the task was begun, and what the tasks before it have left."""
    folder = Path(config.run_dir)
    begun = folder / f"{name}.begun"
    with begun.open("a") as stream:
        stream.write(f"{os.getpid()} {config.resume}\n")
    found = "".join((folder / f"{other}.done").read_text() for other in reads)
    (folder / f"{name}.done").write_text(f"{name}({found})")
    return training.Finished(name)


def die_once(place, config, *, name):
    """End as by the machine's memory killer, the first time."""
    if not (Path(config.run_dir) / f"{name}.begun").exists():
        (Path(config.run_dir) / f"{name}.begun").write_text("killed\n")
        os.kill(os.getpid(), signal.SIGKILL)
    return note(place, config, name=name)


def die(place, config):
    """End as by the machine's memory killer, always."""
    os.kill(os.getpid(), signal.SIGKILL)


def lack_memory(place, config):
    """Fail as TensorFlow does on a device without room."""
    raise RuntimeError("RESOURCE_EXHAUSTED: failed to allocate memory")


def diverge(place, config):
    """Fail as a training does that diverges."""
    raise training.TrainingDivergedError("the loss is NaN")


def fail(place, config):
    """Fail by a fault of the program."""
    raise ZeroDivisionError("a fault")


def refuse(place, config):
    """Fail by a fault that the user can mend."""
    raise training.ConfigError("width must be even")


def linger(place, config, *, name):
    """Work until asked to stop."""
    (Path(config.run_dir) / f"{name}.begun").write_text(f"{os.getpid()}\n")
    while not place.deadline.is_over():
        time.sleep(0.05)
    (Path(config.run_dir) / f"{name}.stored").touch()
    place.deadline.pause_before(name)


def trainings():
    """Rows of a comparison that train in seconds."""
    base = training.RunConfig(
        base_channels=2,
        dataset="motifs10",
        num_train=200,
        num_test=100,
        epochs=2,
        batch_size=32,
        dropout_rate=0.2,
        augment="flip_crop",
        tensorboard=False,
        verbose="silent",
        resume=True,
    )
    return {
        "conv": base,
        "local": base.replace(connectivity="local"),
        "lasso": base.replace(connectivity="dense", optimizer="beta_lasso"),
    }


@dataclass(frozen=True)
class Mortal(training.RunConfig):
    """A training whose process is killed, always, where its seed is 13."""

    def identity(self):
        """The fields that decide the result; a run asks for them before it begins."""
        if self.seed == 13 and os.environ.get("ENGINE_TASKS_DRIVER") != str(os.getpid()):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().identity()
