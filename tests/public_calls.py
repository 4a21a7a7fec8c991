"""Every public function and class, a good value for each of its arguments, and bad ones.

Signatures are read by inspection, so that a new function joins by itself; only an argument that
needs more than its annotation says has an entry in `_good_by_name`.
"""

import collections.abc
import contextlib
import dataclasses
import functools
import importlib
import inspect
import math
import re
import signal
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

import tfconvbias as tcb
from tfconvbias import analysis, graph, plots, surgery, training, tuning
from tfconvbias.arguments import Measured
from tfconvbias.studies import dascoli2019, neyshabur2020, structured_sparsity
from tfconvbias.training import accelerator_table

PACKAGES = (
    *(
        "connectivity",
        "data",
        "optimizers",
        "graph",
        "layers",
        "regularizers",
        "analysis",
        "models",
    ),
    *("embedding", "surgery", "callbacks", "plots", "training", "tuning", "studies"),
    *("studies.neyshabur2020", "studies.dascoli2019"),
    *("studies.edge_of_stability", "studies.structured_sparsity"),
)

PROTOCOL = neyshabur2020.PROTOCOL

# What functions return, and errors: users read these and do not make them.
MADE_BY_THE_LIBRARY = {
    "Accelerator", "Architecture", "AugmentationLayers", "BetaLassoSettings", "Call", "Cell",
    "ChannelGroup", "ChannelGroups", "ComparisonResult", "DescriptionLength", "Deviation",
    "Devices", "EmbeddedSize", "Findings", "Finished", "FreezeAudit", "HessianEigenvalues",
    "Interpolation", "LayerArchitecture", "LayerChoice", "LayerCounts", "LayerEpoch",
    "LayerGraph", "LayerKind", "LocalSupport", "Locality", "Outcome", "PenalizedVariable",
    "Plan", "PointGeometry", "PresetCard", "Pruned", "PrunedGroup", "PruningReport",
    "Published", "Report", "RunPlan", "RunResult", "SearchResults", "Slice", "Sparsified",
    "SparsityReport", "SparsityResult", "SpectralDensity", "StepCost", "StepSizes",
    "SwitchTimeResult", "TensorRef", "TraceEstimate", "Trial", "WayBackResult",
    "WindowCoverage", "Workplace",
}  # fmt: skip


class Case(NamedTuple):
    """One argument of one public callable."""

    package: str
    name: str
    function: Callable
    parameter: inspect.Parameter
    hint: Any

    @property
    def id(self) -> str:
        return f"{self.package}.{self.name}({self.parameter.name})"


def public_callables() -> Iterator[tuple[str, str, Callable]]:
    seen = set()
    for package in PACKAGES:
        module = importlib.import_module(f"tfconvbias.{package}")
        for name in module.__all__:
            found = getattr(module, name)
            is_kept = (
                callable(found)
                and not isinstance(found, types.GenericAlias | typing._SpecialForm)
                and not typing.get_origin(found)
                and not (isinstance(found, type) and issubclass(found, BaseException))
                and name not in MADE_BY_THE_LIBRARY
                and id(found) not in seen
            )
            if is_kept:
                seen.add(id(found))
                yield package, name, found


def cases() -> Iterator[Case]:
    for package, name, function in public_callables():
        hints = _hints(function)
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            yield Case(package, name, function, parameter, hints.get(parameter.name, Any))


def _hints(function: Callable) -> dict[str, Any]:
    is_plain_class = isinstance(function, type) and not dataclasses.is_dataclass(function)
    target = function.__init__ if is_plain_class else function
    try:
        return typing.get_type_hints(inspect.unwrap(target), include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def bad_values(case: Case) -> list[Any]:
    """Values that are nonsense whatever the function does with them."""
    name, hint = case.parameter.name, case.hint
    kinds = _kinds(hint)
    bad: list[Any] = []
    if kinds is None:
        return bad
    if type(None) not in kinds and case.parameter.default is not None:
        bad.append(None)
    numeric = {int, float} & kinds
    if numeric:
        bad += ["three"] if bool in kinds else ["three", True]
        bad += [] if hint is Measured else [math.nan]
        if float not in kinds:
            bad += [2.5]
        bad += [value for part, values in RANGES for value in values if _named(name, part)]
    if kinds <= {str, type(None), "literal", "path"} and kinds:
        is_choice = "literal" in kinds or _is_choice(name)
        bad += [3, "no such thing\x00"] if is_choice and case.id not in FREE_TEXT else [3.5]
    if bool in kinds and not numeric:
        bad += ["yes", 2]
    if "sequence" in kinds and str not in kinds and not numeric:
        bad += [3, "abc"]
    if "mapping" in kinds:
        bad += [3, "abc"]
    if "callable" in kinds and str not in kinds and not numeric:
        bad += [3]
    if "object" in kinds and str not in kinds and not numeric:
        bad += [3, "abc"]
    if "array" in kinds:
        bad += ["abc", np.array(["a", "b"])]
    return bad


# Part of an argument's name → numbers that it cannot have.
RANGES = [
    ("num_", [-1]),
    ("epochs", [-1]),
    ("batch_size", [0, -1]),
    ("steps", [-1]),
    ("units", [0, -1]),
    ("filters", [0, -1]),
    ("kernel_size", [0, -1]),
    ("strides", [0, -1]),
    ("dilation_rate", [0, -1]),
    ("groups", [0, -1]),
    ("width", [0, -1]),
    ("base_channels", [0, -1]),
    ("classes", [0, -1]),
    ("patch_size", [0, -1]),
    ("seed", [-1]),
    ("every", [0, -1]),
    ("dropout_rate", [-0.1, 1.5]),
    ("probability", [-0.1, 1.5]),
    ("sparsity", [-0.1, 1.5]),
    ("fraction", [-0.1, 1.5]),
    ("delta", [-0.1, 1.5]),
    ("noise", [-1.0]),
    ("radius", [-1.0]),
    ("tolerance", [-1.0]),
    ("learning_rate", [-1.0]),
    ("l1", [-1.0]),
    ("alpha", [-1.0]),
    ("beta", [-1.0]),
    ("tau", [-1.0]),
    ("momentum", [-1.0]),
    ("window", [0, -1]),
    ("max_", [-1]),
]


def _named(name: str, part: str) -> bool:
    return name.startswith(part) if part.endswith("_") else part in name.split("-")


# Named like a choice, but any words will do.
FREE_TEXT = {"training.Task(kind)", "models.presets(family)", "models.load_preset(family)"}


def _is_choice(name: str) -> bool:
    return name in {
        "connectivity", "padding", "data_format", "target", "onto", "method", "kind", "norm",
        "form", "scope", "choose", "initialization", "threshold", "family", "shifts", "keep",
    }  # fmt: skip


def _kinds(hint: Any) -> set | None:
    """What kinds of values a hint allows; `None` where it says nothing."""
    if hint is Any or hint is inspect.Parameter.empty or isinstance(hint, typing.TypeVar):
        return None
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _kinds(inner[0])
    if origin in (typing.Union, types.UnionType):
        found = [_kinds(option) for option in inner]
        return None if None in found else set().union(*found)
    if origin is typing.Literal:
        return {"literal"} | ({type(None)} if None in inner else set())
    if hint in (int, float, bool, str, type(None)):
        return {hint}
    if hint is np.ndarray:
        return {"array"}
    base = origin or hint
    if base is collections.abc.Callable:
        return {"callable"}
    if not isinstance(base, type):
        return None
    if issubclass(base, collections.abc.Mapping):
        return {"mapping"}
    if "PathLike" in base.__name__ or base.__name__ == "Path":
        return {"path"}
    if (base is not object and issubclass(base, collections.abc.Iterable)) or base in (tuple, list):
        return {"sequence"}
    return {"object"}


def good_value(case: Case) -> Any:
    """A value for a required argument, by its name where that says more than the annotation."""
    by_name = _good_by_name()
    if case.id in by_name:
        return by_name[case.id]
    if isinstance(case.hint, type) and issubclass(case.hint, training.Config):
        return PROTOCOL if case.hint is neyshabur2020.Protocol else case.hint()
    return by_name.get(case.parameter.name, _good_by_hint(case.hint))


def _good_by_hint(hint: Any) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _good_by_hint(inner[0])
    if origin in (typing.Union, types.UnionType):
        return _good_by_hint(inner[0])
    if origin in (type, collections.abc.Callable):
        return print if origin is not type else keras.layers.Dense
    if not inner:
        origin = None
    if origin is typing.Literal:
        return inner[0]
    if origin is tuple:
        return tuple(map(_good_by_hint, [item for item in inner if item is not Ellipsis]))
    if origin and issubclass(origin, collections.abc.Mapping):
        return {}
    if origin:
        return (_good_by_hint(inner[0]),)
    simple = {int: 3, float: 0.5, str: "name", bool: True, np.ndarray: np.ones((4, 4), "float32")}
    if hint in simple:
        return simple[hint]
    if hint is keras.Model:
        return _model()
    if hint is Path:
        return Path("folder")
    return None


@functools.cache
def _model() -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    return model


@functools.cache
def _good_by_name() -> dict[str, Any]:
    x, y = np.ones((8, 4), "float32"), np.zeros((8, 3), "float32")
    images = np.zeros((8, 12, 12, 3), "uint8")
    labels = np.zeros(8, "int32")
    dataset = tcb.data.ImageDataset("x", images, labels, images, labels, images, labels, ("a", "b"))
    penalty = tcb.regularizers.KernelNumber(0.1)
    density = analysis.SpectralDensity(np.ones((1, 2)), np.full((1, 2), 0.5), 4, 2)
    geometry = graph.conv_geometry((4, 4, 1), (3, 3, 1, 2))
    return {
        "model": _model(), "before": _model(), "after": _model(), "a": _model(), "b": _model(),
        "x": x, "y": y, "x_train": x, "y_train": y, "x_test": x, "y_test": y,
        "dataset": dataset, "config": training.RunConfig(), "penalty": penalty, "base": penalty,
        "geometry": geometry, "kernel": np.ones((48, 5), "float32"), "input_shape": (4, 4, 3),
        "image": images[0], "images": images, "images_and_labels": (images, labels),
        "inner_optimizer": "sgd", "optimizer": keras.optimizers.SGD(), "learning_rate": 0.1,
        "l1": 1e-3, "beta": 5.0, "alpha": 0.1, "tau": 0.1, "pull": 0.1, "cutoff": 0.01,
        "connectivity": "dense", "family": "s_conv", "padding": "valid", "spatial_shape": (6, 6),
        "policy": [[("Invert", 0.5, 0.5)]], "operation": "Invert", "level": 0.5,
        "statistics": "cifar10", "mean": (0.5,), "std": (0.5,), "seed": 0, "schedule": 0.5,
        "folder": "folder", "path": "folder", "name_or_path": "motifs10", "file": Path("file"),
        "variables": _model().variables, "variable": _model().variables[0], "vector": [x, y],
        "weights": {}, "data": images, "layer": keras.layers.Dense(3), "sample": np.ones((8, 6)),
        "training.fit(folder)": training.RunFolder("folder"),
        "training.run_tasks(tasks)": [training.Task("task", print, training.RunConfig())],
        "training.run_tasks(many)": training.ManyRuns(),
        "training.run_tasks(kept)": training.Kept(),
        "training.plan_run(device)": accelerator_table.ACCELERATORS["h100"],
        "data.teacher_regression(teacher)":
            tcb.data.conv_teacher(2, 3, tcb.data.uniform_sphere(9, 6)),
        "plots.accuracy_frontier(series)": [plots.Series("a", {}, [])],
        "plots.size_snakes(base)": [{3: 1}], "plots.size_snakes(sizes)": {"a": [{3: 1}]},
        "plots.eigenvalue_density(densities)": {"a": density},
        "studies.structured_sparsity.StructuredSparsityHyperModel(folder)":
            training.RunFolder("folder"),
        "tuning.BetaLassoHyperModel(config)":
            tuning.SearchConfig(run=training.RunConfig(optimizer="beta_lasso")),
        "tuning.SGDHyperModel(config)": tuning.SearchConfig(run=training.RunConfig()),
        "analysis.locality(input_shape)": (12, 4, 1), "analysis.locality(window)": 2,
        "work": print, "content": {}, "facts": graph.LayerFacts("dense"), "keep": "local",
        "groups": surgery.channel_groups(_model()), "default": 1, "help": "help",
        "data.preprocessing(statistics)": "cifar10",
        "surgery.register_cut(layer)": keras.layers.Dense, "surgery.prune(ratio)": 0.5,
        **{f"studies.neyshabur2020.Protocol({field.name})": getattr(PROTOCOL, field.name)
           for field in dataclasses.fields(PROTOCOL)},
        "embedding.conv_to_dense(kernel)": np.ones((3, 3, 3, 2)),
        "embedding.conv_to_local(kernel)": np.ones((3, 3, 3, 2)),
        "plots.width_snakes(base)": (8, 8), "plots.width_snakes(widths)": {"a": (4, 4)},
        "tuning.hypermodel(config)": tuning.SearchConfig(), "run": training.RunConfig(),
        "training.main(run)": print, "final_sparsity": 0.5, "begin_step": 0, "end_step": 10,
        "training.write_page(settings)": training.RunConfig(),
        "regularizers.Complexity(base)": keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(3)]
        ),
        # Checked before anything of it is read.
        "studies.dascoli2019.write_switch_time_report(result)":
            object.__new__(dascoli2019.SwitchTimeResult),
        "studies.dascoli2019.write_way_back_report(result)":
            object.__new__(dascoli2019.WayBackResult),
        "studies.structured_sparsity.write_comparison_report(result)":
            object.__new__(structured_sparsity.ComparisonResult),
        "kernel_shape": (3, 3, 3, 2), "points": np.ones((5, 3)), "gradient": print,
    }  # fmt: skip


class Outcome(NamedTuple):
    """How a call with one bad value ended: "clear", "obscure", "accepted" or "hangs"."""

    kind: str
    detail: str


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(*_):
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class TimeLimit(BaseException):
    """The call took too long."""


def call_with(case: Case, value: Any) -> Outcome:
    """Call with one bad value among good ones."""
    required = [
        other
        for other in _cases_of(case.package, case.name)
        if other.parameter.default is other.parameter.empty or other.id in _good_by_name()
    ]
    arguments = {other.parameter.name: good_value(other) for other in required}
    arguments[case.parameter.name] = value
    positional = [
        arguments.pop(other.parameter.name)
        for other in required
        if other.parameter.kind is other.parameter.POSITIONAL_ONLY
    ]
    try:
        with _time_limit(5):
            found = case.function(*positional, **arguments)
            if (
                isinstance(found, contextlib.AbstractContextManager)
                and "_GeneratorContext" in type(found).__name__
            ):
                found.__enter__()
            elif isinstance(found, types.GeneratorType):
                next(found, None)
    except TimeLimit:
        return Outcome("hangs", "")
    except (ValueError, TypeError, KeyError, FileNotFoundError) as error:
        text = str(error)
        is_clear = re.search(rf"\b{re.escape(case.parameter.name)}\b", text) is not None
        return Outcome("clear" if is_clear else "obscure", f"{type(error).__name__}: {text[:150]}")
    except Exception as error:
        return Outcome("obscure", f"{type(error).__name__}: {str(error)[:150]}")
    return Outcome("accepted", repr(found)[:80])


@functools.cache
def _cases_of(package: str, name: str) -> list[Case]:
    return [case for case in cases() if (case.package, case.name) == (package, name)]
