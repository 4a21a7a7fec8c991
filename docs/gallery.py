"""Draws the figures of the gallery, in seconds and without training: python docs/gallery.py."""

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("svg")

from matplotlib import pyplot

import tfconvbias as tcb

FOLDER = Path(__file__).parent / "figures"


def motifs() -> pyplot.Figure:
    """Three images of each class of the embedded data set."""
    images = tcb.data.make_motifs(num_train=60, num_validation=10, num_test=10)
    figure, axes = pyplot.subplots(3, 10, figsize=(9, 3))
    for label, column in enumerate(axes.T):
        chosen = images.x_train[images.y_train == label]
        column[0].set_title(images.class_names[label], fontsize=7)
        for axis, image in zip(column, chosen, strict=False):
            axis.imshow(image)
            axis.set_axis_off()
    return figure


def parameters() -> pyplot.Figure:
    """Kernel weights of the S and D families by width."""
    widths = [4, 8, 16, 32, 64, 128]
    figure, axis = pyplot.subplots(figsize=(6, 4))
    for family, style in (("s", "-"), ("d", "--")):
        for connectivity, color in (("conv", "C0"), ("local", "C1"), ("dense", "C2")):
            end = "fc" if connectivity == "dense" else connectivity
            name = f"{family}_{end}"
            counts = [tcb.models.num_kernel_parameters(name, width) for width in widths]
            label = name.upper().replace("_", "-")
            axis.loglog(widths, counts, style, color=color, marker="o", markersize=3, label=label)
    axis.set_xlabel("width α (channels of the first layer)")
    axis.set_ylabel("kernel weights")
    axis.legend(fontsize=8)
    return figure


def matrices() -> pyplot.Figure:
    """One kernel as the matrix of a convolution, a local layer, and dense layers."""
    generator = np.random.default_rng(0)
    size, kernel = 12, np.array([0.9, -0.6, 0.4])[:, None, None]
    shared = tcb.embedding.conv_to_dense(kernel, (size, 1), padding="same")
    noise = generator.normal(0, 0.15, shared.shape)
    panels = {
        "conv": shared,
        "local, sharing broken": np.where(shared != 0, shared + noise, 0),
        "dense, embedded": shared,
        "dense, moved": shared + noise,
    }
    figure, axes = pyplot.subplots(1, len(panels), figsize=(9, 2.6))
    for axis, (title, matrix) in zip(axes, panels.items(), strict=True):
        axis.imshow(matrix.T, cmap="RdBu", vmin=-1, vmax=1)
        axis.set_title(title, fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
    return figure


def filters(preset: str) -> pyplot.Figure:
    """What units of a trained network's first layer look at."""
    # A model stored without its zeros becomes one of Keras' own layers first.
    model = tcb.surgery.densify(tcb.models.SConv.from_preset(preset))
    images, _ = tcb.training.first_layer_images(model, num=16)
    return tcb.plots.filter_images(images, title=preset, columns=8)


def filters_of_convolution() -> pyplot.Figure:
    """S-CONV trained with SGD."""
    return filters("s_conv_sgd_motifs10")


def filters_of_sgd() -> pyplot.Figure:
    """S-FC trained with SGD."""
    return filters("s_fc_sgd_motifs10")


def filters_of_beta_lasso() -> pyplot.Figure:
    """S-FC trained with β-LASSO."""
    return filters("s_fc_beta_lasso_motifs10")


FIGURES = (
    motifs,
    parameters,
    matrices,
    filters_of_convolution,
    filters_of_sgd,
    filters_of_beta_lasso,
)

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for draw in FIGURES:
        figure = draw()
        figure.savefig(
            FOLDER / f"{draw.__name__}.svg", bbox_inches="tight", metadata={"Date": None}
        )
        pyplot.close(figure)
