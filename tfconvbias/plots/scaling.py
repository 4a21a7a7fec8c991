"""Parameters and accuracy against the size of a network, its images or its kernels."""

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from tfconvbias.arguments import checked
from tfconvbias.plots.figure import curve_style, legend_below, legend_under, panels, within_percent

Point = tuple[float, float]


@checked
def parameter_curves(
    counts: Mapping[str, Mapping[int, Mapping[str, tuple[float, float]]]],
) -> Figure:
    """Parameter counts, exact and by formula, against what varies, on logarithmic axes.

    Args:
        counts: What varies (the label of the axis) → its value → member → exact count and formula.

    Returns:
        A figure with one panel per quantity that varies: lines are exact counts, crosses formulas.

    Reference:
        Neyshabur, "Towards Learning Convolutions from Scratch", 2020, Figure 1, right.
    """
    figure, axes = panels(len(counts))
    for axis, (label, by_value) in zip(axes, counts.items(), strict=True):
        values = sorted(by_value)
        for index, name in enumerate(by_value[values[0]]):
            exact, formula = zip(*(by_value[value][name] for value in values), strict=True)
            shown = name.upper().replace("_", "-")
            axis.plot(values, exact, label=shown, **curve_style(index))
            axis.plot(values, formula, color=f"C{index}", linestyle="none", marker="x")
        axis.set(xlabel=label, ylabel="kernel weights", xscale="log", yscale="log")
        axis.grid(alpha=0.3)
    axes[-1].plot([], [], color="black", linestyle="none", marker="x", label="paper's formula")
    legend_below(figure, axes[-1], 7)
    return figure


@checked
def accuracy_against_parameters(
    train: Mapping[str, Sequence[Point]],
    test: Mapping[str, Sequence[Point]],
    over_parameterised: Mapping[str, Point],
    train_accuracy: float,
    title: str | None = None,
) -> Figure:
    """Accuracy of families against their size, and test accuracy of the members that fit.

    Args:
        train: Family → (number of parameters, training accuracy in %).
        test: Family → (number of parameters, test accuracy in %).
        over_parameterised: Family → (fewest parameters that reach `train_accuracy`, best test
            accuracy in % of the members with at least as many). Families without a member that
            reaches it are missing here.
        train_accuracy: Training accuracy from which on a member counts as fitting, in %.
        title: Text above the panels.

    Returns:
        A figure with three panels; two where no member fits.

    Reference:
        Neyshabur, "Towards Learning Convolutions from Scratch", 2020, Figures 2 and 6.
    """
    figure, axes = panels(3 if over_parameterised else 2)
    colors = {name: f"C{index}" for index, name in enumerate(train)}
    for axis, points, label in zip(axes, (train, test), ("training", "test"), strict=False):
        for name, found in points.items():
            sizes, accuracies = zip(*sorted(found), strict=True)
            style = curve_style(list(train).index(name))
            axis.plot(sizes, accuracies, marker="o", label=name, **style)
        axis.set(xlabel="kernel weights", ylabel=f"{label} accuracy, %")
    axes[0].axhline(train_accuracy, color="grey", linestyle="--", linewidth=1)
    for name, (size, accuracy) in over_parameterised.items():
        axes[2].plot(
            [size], [accuracy], marker="o", linestyle="none", color=colors[name], label=name
        )
    if over_parameterised:
        axes[2].set(
            xlabel=f"fewest weights with {train_accuracy:g} % training accuracy",
            ylabel="best test accuracy, %",
        )
        axes[2].margins(x=0.3, y=0.2)
    for axis in axes:
        within_percent(axis)
        axis.set_xscale("log")
        # Between near powers of ten the minor ticks' labels would lie on each other.
        axis.tick_params(axis="x", which="both", labelrotation=45)
        axis.grid(alpha=0.3)
    legend_below(figure, axes[0], len(train))
    if title:
        figure.suptitle(title)
    return figure


@checked
def accuracy_against_kernel_size(
    measured: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]],
    published: Mapping[str, Mapping[str, Mapping[int, float]]],
) -> Figure:
    """Test accuracy against the side of the kernels, one panel per data set.

    Args:
        measured: Data set → label → kernel size → test accuracies in %, one for each seed.
        published: Data set, of those that have published values → label → kernel size → test
            accuracy in %; drawn dashed, in the colour of the same label.

    Returns:
        A figure with one panel per data set: means, and bars of one standard deviation over seeds.

    Reference:
        Neyshabur, "Towards Learning Convolutions from Scratch", 2020, Figure 5.
    """
    figure, axes = panels(len(measured))
    for axis, (dataset, curves) in zip(axes, measured.items(), strict=True):
        for index, (name, by_size) in enumerate(curves.items()):
            style = curve_style(2 * index)
            sizes = sorted(by_size)
            means = [statistics.fmean(by_size[k]) for k in sizes]
            axis.plot(sizes, means, marker="o", label=name, **style)
            if any(len(by_size[k]) > 1 for k in sizes):
                spreads = [
                    statistics.stdev(by_size[k]) if len(by_size[k]) > 1 else 0 for k in sizes
                ]
                axis.errorbar(sizes, means, spreads, fmt="none", capsize=3, ecolor=style["color"])
            theirs = published.get(dataset, {}).get(name, {})
            if theirs:
                sizes = sorted(theirs)
                accuracies = [theirs[k] for k in sizes]
                theirs_style = {**style, "linestyle": "--", "linewidth": 1.2}
                axis.plot(sizes, accuracies, label=f"{name}, paper", **theirs_style)
        drawn = (*curves.values(), *published.get(dataset, {}).values())
        ticks = sorted({k for by_size in drawn for k in by_size})
        axis.set(xlabel="kernel size", ylabel="test accuracy, %", title=dataset, xticks=ticks)
        within_percent(axis)
        axis.grid(alpha=0.3)
        legend_under(axis)
    return figure


@checked
def accuracy_pairs(
    measured: Mapping[str, tuple[float, float]], labels: tuple[str, str], title: str | None = None
) -> Figure:
    """Two accuracies of each model as a pair of bars.

    Args:
        measured: Model → the two accuracies in %.
        labels: Names of the first and of the second accuracy.
        title: Text above the bars.

    Returns:
        A figure with one panel.
    """
    figure, (axis,) = panels(1, width=6)
    width = 0.4
    for side, label in enumerate(labels):
        places = [index + (side - 0.5) * width for index in range(len(measured))]
        bars = axis.bar(places, [pair[side] for pair in measured.values()], width, label=label)
        axis.bar_label(bars, fmt="%.1f", fontsize="small")
    axis.set_xticks(range(len(measured)), list(measured))
    axis.set(ylabel="test accuracy, %", ylim=(0, 100))
    figure.legend(fontsize="small", loc="outside lower center", ncols=2)
    if title:
        axis.set_title(title, pad=18)  # the number above a full bar stands in between
    return figure
