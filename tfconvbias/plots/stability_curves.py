"""Figures of training at the edge of stability."""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from tfconvbias.arguments import checked
from tfconvbias.plots.figure import WholeNumbers, curve_style, legend_under, panels


@checked
def sharpness_curves(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Sharpness with the edge, errors and weighted path norm over steps.

    Args:
        histories: Label of a run → column → values, with the columns step, sharpness, edge,
            train_error, excess_risk, path_norm and path_norm_bound.

    Returns:
        A figure with three panels.
    """
    figure, axes = panels(3)
    sharpness, errors, norms = axes
    for index, (name, history) in enumerate(histories.items()):
        color = f"C{index}"
        step = history["step"]
        errors.plot(step, history["train_error"], color=color, label=f"{name}, train")
        errors.plot(
            step, history["excess_risk"], color=color, linestyle=":", label=f"{name}, excess"
        )
        norms.plot(step, history["path_norm"], color=color, label=name)
        norms.plot(
            step, history["path_norm_bound"], color=color, linestyle="--", label=f"{name}, bound"
        )
    _sharpness(sharpness, histories)
    errors.set(xlabel="step", ylabel="mean squared error", ylim=(0, 3))
    norms.set(xlabel="step", ylabel="weighted path norm", yscale="log")
    for axis, title in zip(axes, ("sharpness", "errors", "path norm"), strict=True):
        _finish(axis, title)
    return figure


@checked
def sharpness_and_accuracy(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Sharpness with the edge, and training and test accuracy of classifiers over steps.

    Args:
        histories: Label of a run → column → values, with the columns step, sharpness, edge,
            accuracy and test_accuracy.

    Returns:
        A figure with two panels.
    """
    figure, (sharpness, accuracy) = panels(2)
    _sharpness(sharpness, histories)
    for index, (name, history) in enumerate(histories.items()):
        step, color = history["step"], f"C{index}"
        for column, name_of_set, style in (
            ("accuracy", "train", "-"),
            ("test_accuracy", "test", ":"),
        ):
            values = [100 * value for value in history[column]]
            accuracy.plot(
                step, values, color=color, linestyle=style, label=f"{name}, {name_of_set}"
            )
    accuracy.set(xlabel="step", ylabel="accuracy, %", ylim=(0, 101.5))
    accuracy.xaxis.set_major_locator(WholeNumbers())
    for axis, title in zip((sharpness, accuracy), ("sharpness", "accuracy"), strict=True):
        _finish(axis, title)
    return figure


@checked
def gap_curves(
    gaps: Mapping[str, Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]]],
) -> Figure:
    """Generalization gap over training time ηt, at which runs of unequal η are compared.

    Args:
        gaps: Title of a panel → label → (times ηt, gaps at them) of each seed. Seeds share a color.

    Returns:
        A figure with one panel for each title; their axes have the same limits.
    """
    wide = 6.0 if len(gaps) == 1 else 4.6
    figure, axes = panels(len(gaps), width=wide, height=4.6)
    for axis, (title, found) in zip(axes, gaps.items(), strict=True):
        few = len(found) <= 4
        colors = matplotlib.colormaps["tab10" if few else "viridis"]
        for index, (label, curves) in enumerate(found.items()):
            style = curve_style(index)
            style["color"] = colors(index if few else 0.95 * index / (len(found) - 1))
            for number, (times, values) in enumerate(curves):
                axis.plot(times, values, label="_" * (number > 0) + label, **style)
        axis.set(xlabel="training time ηt", xscale="symlog")
        _finish(axis, title)
    axes[0].set_ylabel("gap")
    _same_height(axes)
    return figure


@checked
def gap_against(
    name: str,
    gaps: Mapping[str, Mapping[int, Sequence[float]]],
    slopes: Mapping[str, tuple[float, float]],
) -> Figure:
    """Generalization gap against a count, such as that of training points, on logarithmic axes.

    Args:
        name: What is counted, such as `"training points n"`.
        gaps: Label → count → gap of each seed. Points are medians, bars go from smallest to
            largest.
        slopes: Label → log–log slope and its standard error, which is NaN for two counts.

    Returns:
        A figure with one panel.
    """
    figure, (axis,) = panels(1)
    for label, by_count in gaps.items():
        slope, error = slopes[label]
        known = "" if math.isnan(error) else f": slope {slope:.2f} ± {error:.2f}"
        _bars(axis, by_count, label + known)
    axis.set(xlabel=name, ylabel="gap", xscale="log", yscale="log")
    # Gaps span a decade or two, where powers of ten alone would leave one number on the axis.
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(lambda value, position: f"{value:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())
    _ticks(axis, {count for by_count in gaps.values() for count in by_count})
    _finish(axis, f"gap and {name}")
    return figure


@checked
def units_of_networks(
    units: Mapping[str, Sequence[tuple[str, Sequence[float], Sequence[float]]]],
) -> Figure:
    """Path norm |v|‖w‖ of each hidden unit against the share of the inputs that activate it.

    Args:
        units: Network → (label of a moment, activation rates, path norms) for each moment. Units
            that nothing activates are left out; each label says how many there are.

    Returns:
        A figure with one panel for each network.
    """
    figure, axes = panels(len(units), width=4.2, height=4.0)
    for axis, (name, moments) in zip(axes, units.items(), strict=True):
        for number, (label, rates, norms) in enumerate(moments):
            alive = [i for i, rate in enumerate(rates) if rate > 0]
            axis.scatter(
                [rates[i] for i in alive],
                [norms[i] for i in alive],
                s=9,
                color="lightgray" if len(moments) > 1 and not number else f"C{number}",
                label=f"{label}, {len(rates) - len(alive)} off",
            )
        axis.set(xlabel="activation rate", yscale="log", xlim=(-0.03, 1.03))
        _finish(axis, name)
    axes[0].set_ylabel("path norm |v|‖w‖ of a unit")
    _same_height(axes)
    return figure


@checked
def gaps_by_group(gaps: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Generalization gap of several networks under several conditions that have no order.

    Args:
        gaps: Label → condition → gap of each seed. Points are medians, bars go from smallest to
            largest.

    Returns:
        A figure with one panel.
    """
    figure, (axis,) = panels(1)
    conditions = list(dict.fromkeys(name for found in gaps.values() for name in found))
    for index, (label, found) in enumerate(gaps.items()):
        shift = 0.12 * (index - (len(gaps) - 1) / 2)
        places = {conditions.index(name) + shift: values for name, values in found.items()}
        _bars(axis, places, label, linestyle="none")
    axis.set(ylabel="gap", ylim=(0, None))
    axis.set_xticks(range(len(conditions)), conditions)
    _finish(axis, "gap")
    return figure


@checked
def against_patch_size(
    train_errors: Mapping[float, Sequence[float]], gaps: Mapping[float, Sequence[float]]
) -> Figure:
    """Training error and gap of a convolutional network against m/d.

    Args:
        train_errors: m/d → training error of each seed.
        gaps: m/d → gap of each seed.

    Returns:
        A figure with one panel.
    """
    figure, (axis,) = panels(1)
    _bars(axis, train_errors, "training error")
    _bars(axis, gaps, "gap")
    axis.set(xlabel="patch size / dimension, m/d", ylabel="mean squared error", xscale="log")
    _ticks(axis, {*train_errors, *gaps})
    _finish(axis, "convolutional network and patch size")
    return figure


def _sharpness(axis: Axes, histories: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    for index, (name, history) in enumerate(histories.items()):
        axis.plot(history["step"], history["sharpness"], label=name, **curve_style(index))
    first = next(iter(histories.values()))
    axis.plot(first["step"], first["edge"], color="black", linestyle="--", label="edge 2/η")
    axis.set(xlabel="step", ylabel="sharpness (½ MSE)", ylim=(0, 2.5 * first["edge"][-1]))
    axis.xaxis.set_major_locator(WholeNumbers())


def _bars(
    axis: Axes, values: Mapping[Any, Sequence[float]], label: str, linestyle: str = "-"
) -> None:
    places = sorted(values)
    middle = [statistics.median(values[place]) for place in places]
    below = [m - min(values[place]) for m, place in zip(middle, places, strict=True)]
    above = [max(values[place]) - m for m, place in zip(middle, places, strict=True)]
    axis.errorbar(
        places,
        middle,
        yerr=[below, above],
        marker="o",
        capsize=3,
        linestyle=linestyle,
        label=label,
    )


def _ticks(axis: Axes, places: Collection[float]) -> None:
    axis.set_xticks(sorted(places), [f"{place:g}" for place in sorted(places)])
    axis.set_xticks([], minor=True)


def _same_height(axes: Sequence[Axes]) -> None:
    low = min(axis.get_ylim()[0] for axis in axes)
    high = max(axis.get_ylim()[1] for axis in axes)
    for axis in axes:
        axis.set_ylim(low, high)


def _finish(axis: Axes, title: str) -> None:
    """A title, and the legend below the data."""
    axis.set_title(title)
    legend_under(axis)
    axis.grid(alpha=0.3, which="both")
