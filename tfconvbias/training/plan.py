"""What runs would take, before they run: parameters, operations, memory and time on a device."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfconvbias.arguments import NonNegativeFloat, PositiveInt, checked
from tfconvbias.lazy import analysis, data, keras
from tfconvbias.memory import readable, uncounted
from tfconvbias.terminal import duration
from tfconvbias.text_table import format_table
from tfconvbias.training.accelerator_table import Accelerator, accelerator
from tfconvbias.training.build import build_model
from tfconvbias.training.data_config import build_dataset
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.files import read_json
from tfconvbias.training.run_config import RunConfig

ASSUMED_EFFICIENCY = 0.4
"""Share of a device's bound that a step is taken to reach where nothing was measured."""


class StepCost(NamedTuple):
    """What one training step of a configuration takes.

    Attributes:
        parameters: Of the model, all of them.
        flop: Floating-point operations of the step's products.
        moved: Bytes that weights, activations and the update move through the device's memory.
        state: Bytes of variables, gradients and the optimizer's state.
        activations: Bytes of the activations of a batch, which are kept for the backward pass.
        layers: Of the model; each starts operations whose time does not depend on their size.
    """

    parameters: int
    flop: int
    moved: int
    state: int
    activations: int
    layers: int

    def bound_seconds(self, device: Accelerator, is_half: bool) -> float:
        """Time of a step on a device that reaches its peak rates, one after the other."""
        return self.flop / (device.half if is_half else device.single) + self.moved / (
            device.bandwidth
        )


class RunPlan(NamedTuple):
    """One run of a plan.

    Attributes:
        cost: Of a step.
        steps: Of the whole run.
        memory: Bytes on each device, a part of the variables under `model_parallel`.
        seconds: Estimated time of the training steps.
    """

    cost: StepCost
    steps: int
    memory: int
    seconds: float


@checked
def step_cost(
    config: RunConfig, image_shape: tuple[int, int, int], classes: PositiveInt
) -> StepCost:
    """Count what a training step takes; no weights are made.

    A product of a kernel with its input takes two operations a multiplication: once forward, once
    for the kernel's gradient and, but for the first kernel, once for the input's. Weights are read
    forward and backward; gradient, momentum and update read and write them again. Activations are
    written forward and read backward. This leaves out augmentation, small layers and what fused
    operations spare.

    Args:
        config: The run.
        image_shape: `(rows, columns, channels)`.
        classes: Number of classes.
    """
    model = _shapes(config, image_shape, classes)
    width = 2 if config.precision in ("auto", "mixed_bfloat16", "mixed_float16") else 4
    forward = []
    for kernel in analysis.kernels(model).values():
        layer = next(found for found in model.layers if kernel.path.startswith(f"{found.name}/"))
        # A convolution applies its kernel at each position; local and dense ones are used once.
        is_shared = isinstance(layer, keras.layers.Conv2D)
        positions = math.prod(layer.output.shape[1:-1]) if is_shared else 1
        forward.append(2 * math.prod(kernel.shape) * positions)
    flop = config.batch_size * (3 * sum(forward) - forward[0])
    units = sum(math.prod(layer.output.shape[1:]) for layer in model.layers[1:])
    weights = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    activations = config.batch_size * units * width
    slots = 1 + (config.momentum > 0)
    # Compute reads a copy in its own width, twice; the update works in float32.
    moved = 2 * width * weights + 4 * weights * (3 + 2 * (slots - 1)) + 2 * activations
    state = 4 * weights * (1 + slots) + width * weights * (width == 2)
    layers = len(model.layers)
    return StepCost(model.count_params(), flop, moved, state, activations, layers)


@checked
def plan_run(
    config: RunConfig,
    image_shape: tuple[int, int, int],
    classes: PositiveInt,
    num_train: PositiveInt,
    device: Accelerator,
    efficiency: float = ASSUMED_EFFICIENCY,
    overhead: NonNegativeFloat = 0.0,
) -> RunPlan:
    """What a whole run takes on a device, or on `config.num_devices` of them.

    Args:
        config: The run.
        image_shape: `(rows, columns, channels)`.
        classes: Number of classes.
        num_train: Training images.
        device: One device.
        efficiency: Share of the bound that a step reaches, measured or assumed.
        overhead: Seconds that a layer adds to a step, however small it is.
    """
    cost = step_cost(config, image_shape, classes)
    steps = config.epochs * (num_train // config.batch_size)
    count = 1 if config.strategy == "none" else config.num_devices or 1
    if config.strategy == "model_parallel":
        memory = cost.state // count + cost.activations
    else:
        memory = cost.state + cost.activations // count
    bound = cost.bound_seconds(device, config.precision != "float32")
    fixed = overhead * cost.layers
    return RunPlan(cost, steps, memory, steps * (fixed + bound / efficiency / count))


@checked
def print_plan(runs: Mapping[str, RunConfig]) -> None:
    """Print what each run of a study would take on the device `plan`, and the total.

    Efficiency and overhead come from the file `plan_efficiency`, which `benchmarks/real_scale.py`
    writes, as `efficiency_of` finds them; without one the efficiency is assumed.

    Args:
        runs: Label → configuration.

    Raises:
        ConfigError: If the device is unknown, the file holds no efficiency, or a data set cannot
            be loaded.
    """
    first = next(iter(runs.values()))
    if first.plan is None:
        raise ConfigError("`plan` must name a device. Received: plan=None")
    device = accelerator(first.plan)
    efficiency, overhead, origin = _efficiency(first)
    rows, seconds = [], 0.0
    datasets: dict[tuple, data.ImageDataset] = {}
    for name, config in runs.items():
        key = (config.dataset, config.num_train, config.image_size, config.include_extra)
        if key not in datasets:
            datasets[key] = build_dataset(config)
        dataset = datasets[key]
        if config.train_on_all:
            dataset = dataset.join_validation()
        found = plan_run(
            config,
            dataset.image_shape,
            dataset.num_classes,
            len(dataset.x_train),
            device,
            efficiency,
            overhead,
        )
        seconds += found.seconds
        fits = "" if found.memory <= device.memory else ", too large"
        rows.append(
            {
                "run": name,
                "parameters": f"{found.cost.parameters:,}",
                "GFLOP per step": f"{found.cost.flop / 1e9:,.3g}",
                "memory per device": readable(found.memory) + fits,
                "steps": f"{found.steps:,}",
                "time": _time(found.seconds),
            }
        )
    print(format_table(rows))
    print(
        f"Total: {_time(seconds)} of training steps on {first.plan}, one run after the "
        f"other, without validation and checkpoints. Efficiency {efficiency:.2f} ({origin})"
        + (f", and {1e3 * overhead:.2f} ms per layer and step." if overhead else ".")
    )


def _time(seconds: float) -> str:
    return duration(seconds) if seconds >= 1 else "less than 1 s"


@checked
def efficiency_of(
    bounds: Sequence[float], layers: Sequence[int], seconds: Sequence[float]
) -> tuple[float, float]:
    """Efficiency and overhead that explain steps: `layers · overhead + bound / efficiency`.

    Small and deep networks show the overhead, large ones the efficiency, so it takes networks that
    differ in both. The relative errors are least squares. Where that makes no sense (one network,
    a negative efficiency or overhead), the efficiency is the median of `bound / seconds`, and the
    overhead 0.

    Args:
        bounds: Of each network's step, in seconds.
        layers: Of each network.
        seconds: The time that its step took.

    Example:
        >>> efficiency_of([0.001, 0.01], [10, 10], [0.007, 0.025])
        (0.5, 0.0005)
    """
    columns = np.stack([layers, bounds], axis=1) / np.asarray(seconds)[:, None]
    (overhead, slope), _, rank, _ = np.linalg.lstsq(columns, np.ones(len(columns)), rcond=None)
    if rank == 2 and slope > 0 and overhead >= 0:
        return round(1 / float(slope), 9), round(float(overhead), 9)
    ratios = [bound / taken for bound, taken in zip(bounds, seconds, strict=True)]
    return statistics.median(ratios), 0.0


def _efficiency(config: RunConfig) -> tuple[float, float, str]:
    if config.plan_efficiency is None:
        return ASSUMED_EFFICIENCY, 0.0, "assumed; --plan-efficiency FILE takes a measured one"
    path = Path(config.plan_efficiency)
    if not path.is_file():
        raise ConfigError(f"There is no such file. Received: plan_efficiency={str(path)!r}")
    rows = read_json(path).get("rows", [])
    measured = [row for row in rows if row.get("bound_seconds") and row.get("step_seconds")]
    if not measured:
        raise ConfigError(
            f"{path} holds no measured bounds: run benchmarks/real_scale.py with --device."
        )
    columns = (
        [row[name] for row in measured] for name in ("bound_seconds", "layers", "step_seconds")
    )
    return *efficiency_of(*columns), f"measured, {path.name}"


def _shapes(config: RunConfig, image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """The configured model with variables that have shapes and no values."""
    image = np.zeros((1, *image_shape), "uint8")
    # Two pixel values, since the normalization divides by their deviation.
    image[0, 0] = 255
    label = np.zeros(1, "int64")
    names = tuple(map(str, range(classes)))
    dataset = data.ImageDataset("plan", *(image, label) * 3, names)
    with uncounted(), keras.StatelessScope(initialize_variables=False):
        return build_model(config, dataset)
