"""Methods that make networks smaller, compared at equal cost, epochs and tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfconvbias.arguments import checked
from tfconvbias.lazy import analysis, data, keras, surgery
from tfconvbias.studies.structured_sparsity.comparison_config import ComparisonConfig, Setting
from tfconvbias.studies.structured_sparsity.comparison_trainings import SeedTrainings
from tfconvbias.training import (
    ConfigError,
    Deadline,
    Finished,
    RunFolder,
    Task,
    TrainingDivergedError,
    Workplace,
    build_dataset,
    counted,
    environment,
    run_tasks,
)
from tfconvbias.training.batches import check_batch_size


@dataclass(frozen=True)
class ComparisonResult:
    """A finished comparison.

    Attributes:
        config: What was run.
        tried: A row for each setting that was tried with the first seed.
        chosen: A row for each method, budget and seed, with the setting of the best validation
            accuracy, and `test_accuracy`.
        folder: The run folder.
    """

    config: ComparisonConfig
    tried: list[dict[str, Any]]
    chosen: list[dict[str, Any]]
    folder: RunFolder

    def of(self, method: str, budget: float) -> list[dict[str, Any]]:
        """The chosen rows of a method at a budget, one for each seed."""
        return [r for r in self.chosen if (r["method"], r["budget"]) == (method, budget)]


@checked
def run_comparison(
    config: ComparisonConfig,
    dataset: data.ImageDataset | None = None,
    deadline: Deadline | None = None,
) -> ComparisonResult:
    """Run a comparison, or what is left of it.

    Each method tries its settings at each budget with the first seed. The one of the best
    validation accuracy runs with all seeds, and only these networks meet the test images, when
    every training is over.

    Args:
        config: What to run, and where to keep it.
        dataset: The configured data set, where the caller has loaded it already.
        deadline: When to stop; by default `config.sweep.max_minutes` from now on.

    Raises:
        ConfigError: If the data set is too small or has no validation images, or the augmentation
            is unknown.
        MissingRunsError: If processes of some seeds were lost; the others are on disk.
        RunFolderError: If the folder holds something else, or this without `resume`.
        RunPausedError: If the time was over before the last training.
        TrainingDivergedError: If the loss of every setting of a method became NaN or infinite.
        data.DatasetUnavailableError: If a named data set is not available.
    """
    sweep = config.sweep
    deadline = deadline or sweep.deadline()
    images = build_dataset(sweep) if dataset is None else dataset
    if len(images.x_validation) == 0:
        raise ConfigError(
            f"Settings are chosen on validation images. Received: data set {images.name} without"
        )
    folder = RunFolder(sweep.run_dir)
    is_claimed = folder.check(config, sweep.resume, images, "comparison")
    check_batch_size(sweep.batch_size, len(images.x_train))
    if dataset is None and config.is_in_process:
        dataset = images
    first, *others = config.seeds
    tasks = [_task(config, first), *(_task(config, seed, task_name(first)) for seed in others)]
    with folder.locked():
        if not is_claimed:
            folder.claim(config, images)
            folder.write_environment(environment())
        ended = run_tasks(tasks, config, sweep, folder.path, deadline=deadline, dataset=dataset)
        for _ in ended:
            pass
        return read_comparison(config, images)


def read_comparison(config: ComparisonConfig, dataset: data.ImageDataset) -> ComparisonResult:
    """What the run folder holds of a comparison; chosen networks are measured if none did so."""
    folder = RunFolder(config.sweep.run_dir)
    return _Comparison(config, dataset, folder, Deadline(None)).result()


def run_seed(place: Workplace, config: ComparisonConfig, *, seed: int) -> Finished:
    """Try all settings with the first seed, or train the chosen ones with another, as a task."""
    folder = RunFolder(config.sweep.run_dir)
    cells = _Comparison(config, place.dataset(config.sweep), folder, place.deadline)
    return Finished(counted(cells.train(seed), "network"))


def _task(config: ComparisonConfig, seed: int, *needs: str) -> Task:
    is_first = seed == config.seeds[0]
    cells = [(method, budget) for method in config.methods for budget in config.budgets_of(method)]
    settings = [len(config.settings(method)) if is_first else 1 for method, _ in cells]
    epochs = config.total_epochs * sum(settings)
    return Task(task_name(seed), run_seed, config, {"seed": seed}, needs=needs, epochs=epochs)


def task_name(seed: int) -> str:
    """The name of a seed's task."""
    return f"seed {seed}"


class _Comparison:
    """The cells of a comparison: method, budget, seed and setting."""

    def __init__(
        self,
        config: ComparisonConfig,
        dataset: data.ImageDataset,
        folder: RunFolder,
        deadline: Deadline,
    ):
        self.config = config
        self.dataset = dataset
        self.folder = folder
        self.deadline = deadline

    def train(self, seed: int) -> int:
        """Train all networks of a seed; returns how many."""
        config = self.config
        trainings = SeedTrainings(config, self.dataset, self.folder, self.deadline, seed)
        num = 0
        for method in config.methods:
            for budget in config.budgets_of(method):
                if seed == config.seeds[0]:
                    num += len(self._try_settings(trainings, method, budget))
                else:
                    best = self._best(self._tried(method, budget))
                    self._train(trainings, method, budget, best["setting"])
                    num += 1
        return num

    def result(self) -> ComparisonResult:
        """The rows of all trained networks, those of the chosen settings measured."""
        config = self.config
        cells = [(method, b) for method in config.methods for b in config.budgets_of(method)]
        tried = {cell: self._tried(*cell) for cell in cells}
        chosen = []
        for seed in config.seeds:
            for cell in cells:
                best = self._best(tried[cell]) if tried[cell] else {"setting": 0}
                row = self._place(*cell, seed, best["setting"]).result()
                if row is not None:
                    chosen.append(row | {"test_accuracy": self._test(row)})
        rows = [row for cell in cells for row in tried[cell]]
        return ComparisonResult(config, rows, chosen, self.folder)

    def _tried(self, method: str, budget: float) -> list[dict[str, Any]]:
        """The rows of the settings that were tried with the first seed and did not diverge."""
        found = [
            self._place(method, budget, self.config.seeds[0], number).result()
            for number in range(len(self.config.settings(method)))
        ]
        return [row for row in found if row is not None]

    def _best(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return max(rows, key=lambda row: row["val_accuracy"])

    def _place(self, method: str, budget: float, seed: int, number: int) -> RunFolder:
        return self.folder.part(f"{method}-{budget:g}/seed-{seed}/setting-{number}")

    def _try_settings(
        self, trainings: SeedTrainings, method: str, budget: float
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        error: TrainingDivergedError | None = None
        for number in range(len(self.config.settings(method))):
            try:
                rows.append(self._train(trainings, method, budget, number))
            except TrainingDivergedError as diverged:
                self.config.sweep.tell(str(diverged))
                error = diverged
        if not rows and error is not None:
            raise error
        return rows

    def _train(
        self, trainings: SeedTrainings, method: str, budget: float, number: int
    ) -> dict[str, Any]:
        """The row of one network, from its folder where it was trained before."""
        setting = self.config.settings(method)[number]
        place = self._place(method, budget, trainings.seed, number)
        name = place.path.relative_to(self.folder.path).as_posix()
        row = place.result()
        if row is not None:
            return row
        network, history = trainings.run(method, budget, setting, name)
        row = {
            "method": method,
            "budget": budget,
            "seed": trainings.seed,
            "setting": number,
            **_of_setting(setting),
            "val_accuracy": history["val_accuracy"][-1],
            "train_accuracy": history["accuracy"][-1],
            "multiply_adds_ratio": _total(network, "multiply_adds") / trainings.full_cost,
            "nonzero_multiply_adds_ratio": nonzero_multiply_adds(network) / trainings.full_cost,
            "parameters": network.count_params(),
            "nonzeros": sum(analysis.num_nonzeros(network).values()),
            "dataset": self.dataset.name,
            "num_train": len(self.dataset.x_train),
            "num_test": len(self.dataset.x_test),
            "name": name,
        }
        place.save_model(network, place.last_model)
        place.write_result(row)
        place.drop_checkpoints()
        return row

    def _test(self, row: Mapping[str, Any]) -> float:
        place = self.folder.part(f"{row['name']}/test")
        found = place.result()
        if found is None:
            file = self.folder.part(row["name"]).last_model
            network = keras.saving.load_model(file, compile=False)
            logits = network.predict(
                self.dataset.x_test, batch_size=data.EVALUATION_BATCH_SIZE, verbose=0
            )
            hits = logits.argmax(axis=-1) == self.dataset.y_test
            found = {"test_accuracy": float(hits.mean())}
            place.write_result(found)
        return found["test_accuracy"]


@checked
def nonzero_multiply_adds(network: keras.Model) -> int:
    """Multiply-adds per image with weights that are not zero: what skipping zeros would leave."""
    kernels = analysis.kernels(network)
    nonzeros = analysis.num_nonzeros(network)
    return round(
        sum(
            layer.multiply_adds * nonzeros[layer.name] / _size(kernels[layer.name])
            for layer in surgery.architecture(network).layers
        )
    )


def _size(variable: keras.Variable) -> int:
    return int(keras.ops.size(variable))


def _total(network: keras.Model, attribute: str) -> int:
    return surgery.architecture(network).total(attribute)


def _of_setting(setting: Setting) -> dict[str, Any]:
    return {"learning_rate": setting.learning_rate, "strength": setting.strength}
