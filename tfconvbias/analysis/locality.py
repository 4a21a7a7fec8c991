"""How local the input weights of units are, beside the same weights on shuffled pixels."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

import keras
import numpy as np

from tfconvbias.analysis.filters import input_weight_images, nonzeros_per_unit, num_units
from tfconvbias.analysis.sparsity import kernels
from tfconvbias.arguments import NonNegativeInt, PositiveInt, check, checked
from tfconvbias.graph.windows import window_of

_MOST_VALUES = 1 << 22


@dataclasses.dataclass(frozen=True)
class Locality:
    """The locality of one layer, means over its units.

    Attributes:
        num_units: units measured; with none, all the numbers below are NaN.
        window: side k of the window.
        spread: mean distance of a unit's weight mass from its centroid, in pixels.
        permuted_spread: the same after a permutation of the pixels, mean over the permutations.
        spread_z: how many standard deviations of the permuted means `spread` lies off their mean;
            far below 0 for local units.
        window_share: share of the mass in the best k×k window.
        permuted_window_share: the same after a permutation of the pixels.
        window_share_z: as `spread_z`; far above 0 for local units.
    """

    num_units: int
    window: int
    spread: float
    permuted_spread: float
    spread_z: float
    window_share: float
    permuted_window_share: float
    window_share_z: float

    @property
    def spread_ratio(self) -> float:
        """`spread / permuted_spread`: 1 where place means nothing, towards 0 for local units."""
        return _ratio(self.spread, self.permuted_spread)

    @property
    def window_share_ratio(self) -> float:
        """`window_share / permuted_window_share`: above 1 for local units."""
        return _ratio(self.window_share, self.permuted_window_share)

    def as_dict(self) -> dict[str, float]:
        """All numbers by name, the ratios too, for logs and tables."""
        return {
            **dataclasses.asdict(self),
            "spread_ratio": self.spread_ratio,
            "window_share_ratio": self.window_share_ratio,
        }


@checked
def spatial_spread(images: np.ndarray) -> np.ndarray:
    """The mean distance of each image's mass from its centroid, in pixels.

    With the mass `m_p = Σ_c |w_pc|` of pixel p and the centroid `c = Σ_p m_p p / Σ_p m_p`,
    `spread = Σ_p m_p ‖p − c‖ / Σ_p m_p`. Uniform mass on a disc of radius r has spread 2r/3.

    Args:
        images: `(units, rows, cols, channels)` weights of any sign.

    Returns:
        `(units,)` float64; NaN for an image without mass.

    Raises:
        ValueError: If `images` does not have four axes.

    Example:
        >>> images = np.zeros((1, 4, 4, 1))
        >>> images[0, 0, 0], images[0, 0, 2] = 3.0, -1.0
        >>> spatial_spread(images).tolist()
        [0.75]
    """
    return _spread(_mass(images))


@checked
def window_share(images: np.ndarray, window: PositiveInt) -> np.ndarray:
    """The largest share of each image's mass that one window covers.

    Args:
        images: `(units, rows, cols, channels)` weights of any sign; the mass of a pixel is the sum
            of their absolute values over the channels.
        window: side k of the square window, which lies wholly inside the image.

    Returns:
        `(units,)` float64 in `[0, 1]`; NaN for an image without mass.

    Raises:
        ValueError: If `images` does not have four axes or the window does not fit into them.

    Example:
        >>> images = np.ones((1, 4, 5, 3))
        >>> window_share(images, 2).tolist()
        [0.2]
    """
    mass = _mass(images)
    _check_window(window, mass.shape[1:])
    return _best_window(mass, window)


@checked
def locality(
    kernel: np.ndarray,
    input_shape: tuple[int, int, int],
    strides: PositiveInt | tuple[PositiveInt, ...] = 1,
    padding: str = "same",
    *,
    window: PositiveInt = 9,
    min_nonzeros: int = 20,
    max_units: PositiveInt | None = None,
    num_permutations: PositiveInt = 8,
    seed: NonNegativeInt = 0,
) -> Locality:
    """Measure how local a layer's units are, beside the same weights with the pixels permuted.

    A dense unit's weights and a locally connected unit's lie on the image where its inputs lie. A
    convolution's kernel is laid on an empty image of the input's size, in the middle, so that the
    three connectivities are measured on the same ground. Each permutation moves the pixels of all
    units alike, channels together, as a permuted data set would: a layer for which place means
    nothing has ratios of 1 and z-scores of the size of 1.

    The shares in a k×k window are computed from integral images.

    Args:
        kernel: of a dense, Conv2D or LocallyConnected2D layer, with 2, 4 or 6 axes.
        input_shape: `(rows, cols, channels)`.
        strides: of a locally connected kernel.
        padding: of a locally connected kernel.
        window: side k of the window; the default is the receptive field of S-CONV.
        min_nonzeros: units with fewer non-zero weights are left out; 20 as in the paper's figures.
        max_units: measure this many units, drawn with `seed`; `None`: all that qualify.
        num_permutations: at least 2, for a standard deviation.
        seed: of the draw and of the permutations.

    Returns:
        A `Locality`.

    Raises:
        ValueError: If the kernel does not fit the input shape, the window does not fit into the
            image, or a count is out of range.

    Example:
        >>> kernel = np.zeros((8, 8, 1, 2))
        >>> kernel[2:5, 3:6] = 1.0
        >>> found = locality(kernel.reshape(64, 2), (8, 8, 1), window=3, min_nonzeros=1)
        >>> found.window_share, found.spread < found.permuted_spread
        (1.0, True)

    Reference:
        Neyshabur, "Towards Learning Convolutions from Scratch", 2020, Figures 4 and 7–9, whose
        pictures this measures; the number itself is ours.
    """
    if min_nonzeros < 1:
        raise ValueError(
            f"`min_nonzeros` must be at least 1. Received: min_nonzeros={min_nonzeros}"
        )
    if num_permutations < 2:
        raise ValueError(
            f"`num_permutations` must be at least 2. Received: num_permutations={num_permutations}"
        )
    check("padding", padding, Literal["valid", "same"])
    canvas = _canvas(kernel, input_shape)
    _check_window(window, canvas)
    generator = np.random.default_rng(seed)
    units = np.flatnonzero(nonzeros_per_unit(kernel) >= min_nonzeros)
    if max_units is not None and len(units) > max_units:
        units = np.sort(generator.choice(units, max_units, replace=False))
    if len(units) == 0:
        return Locality(0, window, *[float("nan")] * 6)

    orders = [np.arange(canvas[0] * canvas[1])]
    orders += [generator.permutation(len(orders[0])) for _ in range(num_permutations)]
    sums = np.zeros((len(orders), 2))
    for mass in _masses(kernel, units, input_shape, canvas, strides, padding):
        flat = mass.reshape(len(mass), -1)
        for number, order in enumerate(orders):
            moved = flat[:, order].reshape(mass.shape)
            sums[number] += _spread(moved).sum(), _best_window(moved, window).sum()
    means = sums / len(units)
    observed, permuted = means[0], means[1:].mean(axis=0)
    z = _z_scores(observed - permuted, means[1:].std(axis=0, ddof=1))
    return Locality(
        num_units=len(units),
        window=window,
        spread=float(observed[0]),
        permuted_spread=float(permuted[0]),
        spread_z=z[0],
        window_share=float(observed[1]),
        permuted_window_share=float(permuted[1]),
        window_share_z=z[1],
    )


@checked
def layer_locality(
    model: keras.Model,
    layer_name: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
    **options,
) -> Locality:
    """Measure the locality of a layer of a model.

    Args:
        model: a built model of channels-last images.
        layer_name: a dense, Conv2D or LocallyConnected2D layer; by default the one with the
            model's first kernel.
        input_shape: `(rows, cols, channels)` of the layer's input; by default the model's. It must
            be given for a dense layer that follows others.
        **options: `window`, `min_nonzeros`, `max_units`, `num_permutations` and `seed` of
            `locality`.

    Returns:
        A `Locality`.

    Raises:
        ValueError: If the layer is unknown or has no such kernel, is dilated or grouped, or the
            input shape does not fit.
    """
    found = kernels(model)
    if layer_name is None and not found:
        raise ValueError(f"`model` has no layer with a kernel. Received: model={model.name}")
    name = next(iter(found)) if layer_name is None else layer_name
    if name not in found:
        raise ValueError(
            f"`layer_name` must be one of the layers with a kernel, {list(found)}. "
            f"Received: layer_name={layer_name!r}"
        )
    layer = model.get_layer(name)
    window = window_of(layer)
    if window is not None and (set(window.dilation_rate) != {1} or window.groups > 1):
        raise ValueError(f"Layer {name!r} must be neither dilated nor grouped.")
    return locality(
        keras.ops.convert_to_numpy(found[name]),
        tuple(model.input_shape[1:]) if input_shape is None else input_shape,
        strides=1 if window is None else window.strides,
        padding="same" if window is None else window.padding,
        **options,
    )


def _masses(
    kernel: np.ndarray,
    units: np.ndarray,
    input_shape: tuple[int, int, int],
    canvas: tuple[int, int],
    strides: int | tuple[int, ...],
    padding: str,
) -> Iterator[np.ndarray]:
    """The units' masses on the canvas, a part of bounded size at a time."""
    step = max(1, _MOST_VALUES // (canvas[0] * canvas[1] * input_shape[2]))
    for start in range(0, len(units), step):
        images = input_weight_images(
            kernel, units[start : start + step].tolist(), input_shape, strides, padding
        )
        mass = _mass(images)
        spare = [size - side for size, side in zip(canvas, mass.shape[1:], strict=True)]
        yield np.pad(mass, ((0, 0), *((n // 2, n - n // 2) for n in spare)))


def _canvas(kernel: np.ndarray, input_shape: tuple[int, int, int]) -> tuple[int, int]:
    rows, cols, channels = input_shape
    num_inputs = kernel.shape[0] if kernel.ndim == 2 else kernel.shape[-2]
    expected = rows * cols * channels if kernel.ndim == 2 else channels
    if num_inputs != expected or num_units(kernel) == 0:
        raise ValueError(
            "`kernel` and `input_shape` do not fit. "
            f"Received: kernel of shape {kernel.shape}, input_shape={input_shape}"
        )
    if kernel.ndim == 4:
        return max(rows, kernel.shape[0]), max(cols, kernel.shape[1])
    return rows, cols


def _mass(images: np.ndarray) -> np.ndarray:
    if images.ndim != 4:
        raise ValueError(
            "`images` must have four axes (units, rows, cols, channels). "
            f"Received: shape={images.shape}"
        )
    return np.abs(images).sum(axis=-1, dtype=np.float64)


def _check_window(window: int, canvas: tuple[int, ...]) -> None:
    if not 1 <= window <= min(canvas):
        raise ValueError(
            f"`window` must lie between 1 and the image's shorter side, {min(canvas)}. "
            f"Received: window={window}"
        )


def _spread(mass: np.ndarray) -> np.ndarray:
    rows, cols = (np.arange(size, dtype=np.float64) for size in mass.shape[1:])
    with np.errstate(invalid="ignore"):
        share = mass / mass.sum(axis=(1, 2), keepdims=True)
    y = rows[:, None] - (share.sum(axis=2) @ rows)[:, None, None]
    x = cols - (share.sum(axis=1) @ cols)[:, None, None]
    return (share * np.sqrt(y * y + x * x)).sum(axis=(1, 2))


def _best_window(mass: np.ndarray, window: int) -> np.ndarray:
    integral = np.zeros((len(mass), *(size + 1 for size in mass.shape[1:])))
    integral[:, 1:, 1:] = mass.cumsum(axis=1).cumsum(axis=2)
    low, high = slice(None, -window), slice(window, None)
    covered = (
        integral[:, high, high]
        - integral[:, low, high]
        - integral[:, high, low]
        + integral[:, low, low]
    )
    with np.errstate(invalid="ignore"):
        # The differences of large sums may pass the whole by a rounding.
        return np.minimum(covered.max(axis=(1, 2)) / integral[:, -1, -1], 1.0)


def _z_scores(differences: np.ndarray, deviations: np.ndarray) -> list[float]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return (differences / deviations).tolist()


def _ratio(value: float, reference: float) -> float:
    # 0/0: all mass in one pixel, whose place no permutation can matter for.
    return 1.0 if value == reference else value / reference
