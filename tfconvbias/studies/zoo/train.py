"""Train the members of the zoo, or what is left of them, and publish each when it is done."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfconvbias.lazy import data, embedding, keras, surgery
from tfconvbias.studies.structured_sparsity import SparsityConfig, run_sparsity
from tfconvbias.studies.zoo.cards import Trained, publish, write_readme
from tfconvbias.studies.zoo.config import ZooConfig
from tfconvbias.studies.zoo.members import MEMBERS, EmbeddedRun, Member
from tfconvbias.training import (
    ConfigError,
    DataConfig,
    Deadline,
    RunConfig,
    RunFolder,
    build_dataset,
    compile_classifier,
    environment,
    fit,
    run,
)


def train_zoo(config: ZooConfig) -> None:
    """Train the chosen members and write models, manifest and README.

    Args:
        config: Which members, on which images, and where to put them.

    Raises:
        ConfigError: If a name is not in the zoo, or its images are missing.
        RunFolderError: If a folder holds another training, or this one without `config.resume`.
        RunPausedError: If the time was over before the last training.
    """
    deadline = config.deadline()
    datasets = _Datasets(config)
    done = set()
    for member in _chosen(config):
        config.tell(f"[{member.name}] {member.title}")
        # The networks of a sweep share one folder, which this very command may have begun.
        resume = config.resume or member.work in done
        trained = train_member(member, config, datasets.of(member), deadline, resume=resume)
        card = publish(trained, datasets.of(member), config.models_dir)
        config.tell(str(card))
        done.add(member.work)
    write_readme(config.models_dir)
    config.tell(f"Models, manifest and README: {config.models_dir}")


def train_member(
    member: Member,
    config: ZooConfig,
    dataset: data.ImageDataset,
    deadline: Deadline | None = None,
    *,
    resume: bool = False,
) -> Trained:
    """Train one member, or continue its training.

    Args:
        member: One of `MEMBERS`.
        config: Where trainings are kept, and what is to be smaller than usual.
        dataset: The member's images.
        deadline: When to stop; by default `config.max_minutes` from now on.
        resume: Whether a training that is there already may be continued.

    Returns:
        The trained model, ready to be published.
    """
    deadline = deadline or config.deadline()
    earlier: tuple[RunFolder, ...] = ()
    training = _with(member.training, config, f"{config.run_dir}/{member.work}", resume)
    if isinstance(training, RunConfig):
        folder = run(training, dataset, deadline).folder
        epochs = training.epochs
    elif isinstance(training, SparsityConfig):
        *parts, last = path_to(member, training)
        sweep = RunFolder(training.run_dir)
        if resume and sweep.is_claimed and sweep.part(last).result() is not None:
            # Going through the sweep again would build each of its networks.
            sweep.check_same(training, dataset, "sweep")
        else:
            run_sparsity(training, dataset, deadline)
        folder, earlier = sweep.part(last), tuple(sweep.part(part) for part in parts)
        epochs = epochs_of(member, training)
    else:
        cnn = MEMBERS[training.cnn]
        start = train_member(cnn, config, dataset, deadline, resume=True)
        folder = _train_embedded(training, start.model, dataset, deadline)
        epochs, earlier = start.epochs + training.epochs, (start.folder,)
    model = folder.load_model(folder.last_model, compile=False)
    if member.is_sparse:
        model = surgery.sparsify(model, choose="smallest").model
    return Trained(member, model, folder, training, epochs, earlier)


def _train_embedded(
    config: EmbeddedRun, cnn: keras.Model, dataset: data.ImageDataset, deadline: Deadline
) -> RunFolder:
    """Embed a trained CNN as a dense network of the same function, and train that on."""
    folder = RunFolder(config.run_dir or "")
    folder.check(config, config.resume, dataset, "training")
    if folder.result() is not None:
        return folder
    keras.utils.set_random_seed(config.seed)
    model = embedding.embed(cnn)
    steps = config.epochs * (len(dataset.x_train) // config.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, decay_steps=steps)
    compile_classifier(model, keras.optimizers.SGD(rate))
    folder.claim(config, dataset)
    folder.write_environment(environment())
    history = fit(
        model,
        dataset,
        folder,
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        measure_start=True,
        execution=config,
        deadline=deadline,
    )
    folder.save_model(model, folder.last_model)
    folder.write_result(
        {
            "train_accuracy": history["accuracy"][-1],
            "val_accuracy": history["val_accuracy"][-1],
            "num_train": len(dataset.x_train),
        }
    )
    folder.drop_checkpoints()
    return folder


def _chosen(config: ZooConfig) -> list[Member]:
    for name in config.only:
        if name not in MEMBERS:
            near = difflib.get_close_matches(name, MEMBERS, n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(
                f"There is no model {name!r} in the zoo.{hint} Models: {', '.join(MEMBERS)}."
            )
        if MEMBERS[name].images == "cifar10_jpeg" and config.cifar10_jpeg is None:
            raise ConfigError(f"{name} needs --cifar10-jpeg FOLDER.")
    return [
        member
        for member in MEMBERS.values()
        if member.name in config.only
        or (not config.only and (member.images == "motifs10" or config.cifar10_jpeg is not None))
    ]


def _with(training: Any, config: ZooConfig, folder: str, resume: bool) -> Any:
    """A member's training with what the command line changes of it."""
    changes: dict[str, Any] = {
        "run_dir": folder,
        "resume": resume,
        "verbose": config.verbose,
        "checkpoint_every": config.checkpoint_every,
    }
    for name in ("num_train", "num_test"):
        if getattr(config, name) is not None:
            changes[name] = getattr(config, name)
    if config.epochs is not None:
        changes["epochs"] = config.epochs
        if isinstance(training, SparsityConfig):
            changes["sparse_epochs"] = changes["fine_tune_epochs"] = config.epochs
    return training.replace(**changes)


def path_to(member: Member, sweep: SparsityConfig) -> list[str]:
    """The folders of the trainings that lead to a network of a sweep; its own is the last."""
    if member.part == "base":
        return ["base"]
    parts = [f"alpha-{alpha:g}" for alpha in sweep.alphas]
    place = [f"{part}/tau-0" for part in parts].index(str(member.part))
    return ["base", *parts[: place + 1], f"{parts[place]}/tau-0"]


def epochs_of(member: Member, sweep: SparsityConfig) -> int:
    """The epochs of a network of a sweep, those of the networks before it among them."""
    stages = len(path_to(member, sweep)) - 2
    if stages < 0:
        return sweep.epochs
    return sweep.epochs + stages * sweep.sparse_epochs + sweep.fine_tune_epochs


class _Datasets:
    """The members' images, of which the last are kept in memory."""

    def __init__(self, config: ZooConfig):
        self._config = config
        self._key: Mapping[str, Any] = {}
        self._last: data.ImageDataset | None = None

    def of(self, member: Member) -> data.ImageDataset:
        """A member's images."""
        config, training = self._config, member.training
        folder = config.cifar10_jpeg if member.images == "cifar10_jpeg" else member.images
        wanted = DataConfig(
            dataset=str(folder),
            image_size=training.image_size,
            num_train=config.num_train or training.num_train,
            num_test=config.num_test or training.num_test,
            seed=training.seed,
        )
        key = {**wanted.identity(), "dataset": str(Path(wanted.dataset))}
        if self._last is None or key != self._key:
            self._key, self._last = key, build_dataset(wanted)
        return self._last
