"""The experiments at the edge of stability on the sphere: which runs they need."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from tfconvbias import training
from tfconvbias.arguments import checked
from tfconvbias.studies.edge_of_stability.run import CONNECTIVITIES, StabilityRun, stability_row
from tfconvbias.studies.edge_of_stability.stored_rows import Row, claimed, row_file, stored_row

EXPERIMENTS = ("architectures", "controls", "sizes", "dimensions", "patch_sizes", "views")
VIEWS = ("blocks", "strided", "random", "identical")


@dataclass(frozen=True)
class StabilitySweep(training.ManyRuns, training.Kept):
    """The experiments, and what their runs share.

    The folder belongs to what all runs share: widths, steps, step sizes and the values of what an
    experiment does not vary. `experiments`, `seeds`, `sizes`, `dimensions` and `patch_sizes` only
    select runs: with `resume`, runs of other values can be added to a folder at any time.

    Raises:
        ConfigError: If a value is out of its range, or two values do not fit together.
    """

    experiments: tuple[str, ...] = training.option(
        EXPERIMENTS, f"some of {', '.join(EXPERIMENTS)}", decides=False
    )
    seeds: int = training.option(3, "number of seeds (0, 1, …) of each run", decides=False)
    dimension: int = training.option(40, "d of the inputs, where it is not varied")
    inputs: Literal["sphere", "product"] = training.option(
        "sphere", "points on one sphere, or each patch on a sphere of its own"
    )
    radius: float | None = training.option(
        None, "norm of the inputs; none: the root of the number of patches"
    )
    noise: float = training.option(1.0, "standard deviation σ of the training noise")
    num_test: int = training.option(4000, "clean test points")
    teacher_width: int = training.option(20, "units of the teacher")
    dense_width: int = training.option(256, "units of the dense network")
    local_width: int = training.option(32, "filters of the local network")
    conv_width: int = training.option(128, "filters of the convolutional network")
    num_train: int = training.option(256, "training points, where they are not varied")
    patch_size: int = training.option(4, "patch size, where it is not varied")
    steps: int = training.option(10_000, "full-batch steps of architectures and controls")
    sweep_steps: int = training.option(
        6000, "full-batch steps of sizes, dimensions, patch_sizes and views"
    )
    measure_every: int = training.option(
        100, "steps between measurements; a divisor of the steps and of sweep_steps"
    )
    warmup_steps: int = training.option(
        1000, "steps over which the learning rate rises linearly from 0"
    )
    learning_rate: float = training.option(
        0.4, "η for half the mean squared error; the edge is 2/η"
    )
    small_learning_rate: float = training.option(
        0.05, "η of the control, which takes as many more steps as it is smaller"
    )
    sizes: tuple[int, ...] = training.option(
        (64, 128, 256, 512, 1024), "numbers of training points", decides=False
    )
    dimensions: tuple[int, ...] = training.option(
        (20, 40, 80, 160), "dimensions d, multiples of the patch size", decides=False
    )
    patch_sizes: tuple[int, ...] = training.option(
        (1, 2, 4, 8, 20, 40), "patch sizes, divisors of d", decides=False
    )
    run_dir: str = training.option(
        "runs/edge-of-stability", "folder of rows, figures and report", decides=False
    )

    def __post_init__(self):
        super().__post_init__()
        self._positive("seeds", *(f"{name}_width" for name in CONNECTIVITIES), "sweep_steps")
        self._above_zero("small_learning_rate")
        if not self.experiments or set(self.experiments) - set(EXPERIMENTS):
            raise training.ConfigError(
                f"experiments must be some of {', '.join(EXPERIMENTS)}. "
                f"Received: experiments={self.experiments}"
            )
        for name in ("sizes", "dimensions", "patch_sizes"):
            self._distinct(name)
            if len(getattr(self, name)) < 2:
                raise training.ConfigError(
                    f"{name} must hold two values or more. Received: {name}={getattr(self, name)}"
                )
        self.runs()  # each run refuses values that do not fit together

    def runs(self) -> dict[str, list[StabilityRun]]:
        """The runs of each chosen experiment; runs that two experiments share are equal."""
        base = StabilityRun(
            num_train=self.num_train,
            patch_size=self.patch_size,
            steps=self.steps,
            learning_rate=self.learning_rate,
            warmup_steps=self.warmup_steps,
            dimension=self.dimension,
            inputs=self.inputs,
            radius=self.radius,
            noise=self.noise,
            num_test=self.num_test,
            teacher_width=self.teacher_width,
            measure_every=self.measure_every,
        )
        # As much time ηt as the others have.
        longer = max(1, round(self.learning_rate / self.small_learning_rate))
        slow = base.replace(
            learning_rate=self.small_learning_rate,
            steps=longer * self.steps,
            measure_every=longer * base.measure_every,
        )
        short = base.replace(steps=self.sweep_steps)
        networks = {
            name: {"connectivity": name, "width": getattr(self, f"{name}_width")}
            for name in CONNECTIVITIES
        }
        planned = {
            "architectures": [base.replace(**network) for network in networks.values()],
            "controls": [
                base.replace(connectivity="conv", width=2 * self.conv_width),
                *(slow.replace(**network) for network in networks.values()),
            ],
            "sizes": [
                short.replace(num_train=size, **networks[name])
                for name in CONNECTIVITIES
                for size in self.sizes
            ],
            "dimensions": [
                short.replace(dimension=dimension, **networks[name])
                for name in CONNECTIVITIES
                for dimension in self.dimensions
            ],
            "patch_sizes": [
                short.replace(patch_size=size, **networks["conv"]) for size in self.patch_sizes
            ],
            "views": [
                short.replace(views=views, **networks[name])
                for name in ("local", "conv")
                for views in VIEWS
            ],
        }
        return {
            name: [run.replace(seed=seed) for run in planned[name] for seed in range(self.seeds)]
            for name in EXPERIMENTS
            if name in self.experiments
        }


@checked
def run_stability(sweep: StabilitySweep) -> dict[str, list[Row]]:
    """Train what is not in the run folder yet.

    Returns:
        The rows of each experiment, as `stability_row` gives them.

    Raises:
        RunFolderError: If the folder holds something else, holds this sweep while `resume` is off,
            or cannot be written.
        RunPausedError: If `max_minutes` are over before the last run; finished rows are kept.
        MissingRunsError: If processes of some runs were lost; finished rows are kept.
        TrainingDivergedError: If a run diverges; finished rows are kept.
    """
    deadline = sweep.deadline()
    planned = sweep.runs()
    folder = training.RunFolder(sweep.run_dir)
    # Experiments share runs.
    tasks = {
        run.name: training.Task(
            run.name,
            make_row,
            run,
            {"folder": sweep.run_dir},
            kind=f"{run.connectivity} {run.width} {run.num_train} {run.dimension}",
            epochs=run.steps,
        )
        for runs in planned.values()
        for run in runs
    }
    with claimed(folder, sweep, "sweep"):
        ended = training.run_tasks(
            list(tasks.values()), sweep, sweep, folder.path, deadline=deadline
        )
        for _ in ended:
            pass
        return stored_experiments(sweep)


def stored_experiments(sweep: StabilitySweep) -> dict[str, list[Row]]:
    """The rows of each experiment that are in the run folder."""
    folder = training.RunFolder(sweep.run_dir)
    files = {
        name: [row_file(folder, run.name) for run in runs] for name, runs in sweep.runs().items()
    }
    return {
        name: [training.read_json(file) for file in found if file.exists()]
        for name, found in files.items()
    }


def make_row(place: training.Workplace, run: StabilityRun, *, folder: str) -> training.Finished:
    """Train one network, unless its row is in the folder, as a task."""
    home = training.RunFolder(folder)
    is_new = not row_file(home, run.name).exists()
    row = stored_row(home, run.name, partial(stability_row, run), place.deadline)
    return training.Finished(
        f"train {row['train_error']:.3f}  gap {row['gap']:.3f}  "
        f"λη/2 {row['relative_sharpness']:.3f}",
        is_new,
    )
