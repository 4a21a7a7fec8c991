"""Embedded procedural images whose classes are told apart by local, position-specific motifs."""

import numpy as np

from tfconvbias.arguments import NonNegativeInt, checked
from tfconvbias.data.image_dataset import ImageDataset
from tfconvbias.data.random_order import random_order, random_words

GRID = 4
CELL = 8
IMAGE_SIZE = GRID * CELL
CHANNELS = 3
NUM_ORIENTATIONS = 5
JITTER = 1

# Grey levels per unit of the noise's standard deviation.
NOISE_SCALE = 12
_NOISE_BYTES = 8
_NOISE_MEAN = _NOISE_BYTES * 255 // 2
# The noise stays within ±59 grey levels, 4.9 standard deviations: 8·255/2 · 12 / 209.
_NOISE_BOUND = 59
# Fixed-point factor NOISE_SCALE / std of a sum of 8 uniform bytes, std² = 8·(256² − 1)/12.
_NOISE_FACTOR = round(NOISE_SCALE / (_NOISE_BYTES * (256**2 - 1) / 12) ** 0.5 * 2**16)

_CODES, _LABELS, _SIGNS, _JITTERS, _NOISE = range(5)


def gabor_cells(amplitude: float) -> np.ndarray:
    """Returns the motifs in grey levels, shape `(orientations, offsets, 8, 8)`, int16.

    Each is `exp(-(u² + v²) / (2·1.6²)) · cos(2π·u / 4)` with `u` along the orientation's normal,
    scaled so that the patch has norm `amplitude` over the three channels; offsets run over the
    9 jitters (−1, 0, 1)².
    """
    rows, columns = np.mgrid[:CELL, :CELL] - (CELL - 1) / 2
    shifts = np.arange(-JITTER, JITTER + 1)
    cells = []
    for angle in np.arange(NUM_ORIENTATIONS) * np.pi / NUM_ORIENTATIONS:
        for down in shifts:
            for right in shifts:
                y, x = rows - down, columns - right
                along = x * np.cos(angle) + y * np.sin(angle)
                envelope = np.exp(-(x**2 + y**2) / (2 * 1.6**2))
                cell = envelope * np.cos(2 * np.pi * along / 4)
                norm = np.sqrt(CHANNELS * np.sum(cell**2))
                cells.append(NOISE_SCALE * amplitude / norm * cell)
    motifs = np.rint(np.stack(cells)).astype(np.int16)
    return motifs.reshape(NUM_ORIENTATIONS, len(shifts) ** 2, CELL, CELL)


def orientation_codes(num_classes: int, seed: int = 0) -> np.ndarray:
    """Returns the orientation index of every class at every place, shape `(classes, 16)`.

    At each place every orientation serves (nearly) the same number of classes, so no single place
    tells much, and two classes differ in about 4/5 of the places.
    """
    balanced = np.arange(num_classes) % NUM_ORIENTATIONS
    places = [
        balanced[random_order(num_classes, seed, num_classes, _CODES, p)] for p in range(GRID**2)
    ]
    return np.stack(places, axis=1)


def _noise(count: int, *key: int) -> np.ndarray:
    # The sum of eight uniform bytes is Gaussian to the eye (excess kurtosis −0.15), bounded, and
    # exact integer arithmetic, which a call of log or cos would not be on every platform.
    words = random_words(count, *key)
    words = (words & 0x00FF00FF00FF00FF) + ((words >> 8) & 0x00FF00FF00FF00FF)
    words = (words & 0x0000FFFF0000FFFF) + ((words >> 16) & 0x0000FFFF0000FFFF)
    total = ((words & 0xFFFFFFFF) + (words >> 32)).astype(np.int32)
    return ((total - _NOISE_MEAN) * _NOISE_FACTOR + 2**15) >> 16


def _render(labels: np.ndarray, codes: np.ndarray, cells: np.ndarray, *key: int) -> np.ndarray:
    num_images, num_places = len(labels), GRID**2
    signs = 1 - 2 * (random_words(num_images * num_places, *key, _SIGNS) >> 63).astype(np.int16)
    jitters = (random_words(num_images * num_places, *key, _JITTERS) >> 32) % cells.shape[1]
    patches = cells[codes[labels], jitters.reshape(num_images, num_places)]
    patches = patches * signs.reshape(num_images, num_places, 1, 1)
    # (image, place row, place column, y, x) -> (image, place row, y, place column, x)
    patches = patches.reshape(num_images, GRID, GRID, CELL, CELL).transpose(0, 1, 3, 2, 4)
    clean = patches.reshape(num_images, IMAGE_SIZE, IMAGE_SIZE, 1)
    images = np.empty((num_images, IMAGE_SIZE, IMAGE_SIZE, CHANNELS), np.uint8)
    for start in range(0, num_images, 1000):
        part = images[start : start + 1000]
        noise = _noise(part.size, *key, _NOISE, start).reshape(part.shape)
        part[...] = 128 + clean[start : start + 1000] + noise
    return images


@checked
def make_motifs(
    num_classes: int = 10,
    *,
    num_train: int = 8000,
    num_validation: int = 1000,
    num_test: int = 2000,
    amplitude: float = 6.0,
    seed: NonNegativeInt = 0,
) -> ImageDataset:
    """Generates the embedded data set `motifs10` or one like it, in about a second.

    Images are 32×32×3 in a 4×4 grid of places of 8×8 pixels. At each place stands a Gabor patch
    whose orientation (one of 5) is set by the class *and* the place, with a random sign and ±1
    pixel of jitter in both directions, the same in the three channels. Its Euclidean norm over
    the patch is `amplitude`, over independent noise of unit standard deviation in every pixel
    and channel. Rendered at 12 grey levels per unit around 128, no pixel is ever clipped.

    The design separates the biases that convolutions build in:

    - The random sign makes the mean image of every class the same grey, so no linear classifier
      beats chance: a network must first find the patch with either sign.
    - With the jitter a single pixel says little, an oriented 8×8 filter much. Local connectivity is
      the right prior and, as the 5 patterns are repeated over 16 places, so is weight sharing.
    - The class is a code over places, so a network must know where a pattern was seen: flattened
      features do, a global average would not.
    - A dense network can represent all this, but plain SGD does not find it from a few thousand
      images; sparse (β-LASSO) training gets part of the way.

    Test accuracy of the S- family with 4 base channels after 12 epochs (seed 0, batch 128, rate
    0.1, cosine, β-LASSO with λ = 1e-3 and β = 20, one run each):

    | data set | amplitude | convolutional | local | dense, β-LASSO | dense, SGD |
    |---|---|---|---|---|---|
    | motifs10 | 6 | 100.0 % | 89.9 % | 80.0 % | 16.3 % |
    | motifs100 | 13 | 100.0 % | 97.0 % | 29.9 % | 3.1 % |

    Everything is drawn from raw PCG64 words with integer arithmetic: the same seed gives the same
    bytes on every platform. The three splits come from independent streams, so `num_train` can be
    changed without touching the test images. The noise is the sum of 8 uniform bytes, Gaussian up
    to an excess kurtosis of −0.15 and bounded by ±4.9 standard deviations.

    Args:
        num_classes: Number of classes, at least 2; `load` offers 10 and 100.
        num_train: Number of training images; classes are balanced to within one image.
        num_validation: Number of validation images.
        num_test: Number of test images.
        amplitude: Norm of a patch over the noise's standard deviation, the signal-to-noise ratio
            of its matched filter. More classes need more: `load` takes 6 for `motifs10` and 13
            for `motifs100`.
        seed: Non-negative integer that fixes codes, labels and images.

    Returns:
        An `ImageDataset` of uint8 images `(n, 32, 32, 3)` and int32 labels.

    Raises:
        ValueError: If a count or the seed is out of range.

    Example:
        >>> from tfconvbias.data import make_motifs
        >>> data = make_motifs(10, num_train=100, num_validation=20, num_test=50)
        >>> data.x_train.shape, data.num_classes
        ((100, 32, 32, 3), 10)
    """
    sizes = {"train": num_train, "validation": num_validation, "test": num_test}
    if num_classes < 2:
        raise ValueError(f"`num_classes` must be at least 2. Received: num_classes={num_classes}")
    for split, size in sizes.items():
        smallest = 0 if split == "validation" else num_classes
        if size < smallest:
            raise ValueError(
                f"`num_{split}` must be at least {smallest} for {num_classes} classes. "
                f"Received: num_{split}={size}"
            )
    cells = gabor_cells(amplitude)
    if amplitude < 0 or np.abs(cells).max() + _NOISE_BOUND > 127:
        raise ValueError(
            "`amplitude` must be non-negative and small enough that no pixel is clipped, at most "
            f"about 19. Received: amplitude={amplitude}"
        )
    codes = orientation_codes(num_classes, seed)
    arrays = {}
    for number, (split, size) in enumerate(sizes.items()):
        key = (seed, num_classes, number + 1)
        labels = (random_order(size, *key, _LABELS) % num_classes).astype(np.int32)
        arrays[f"x_{split}"] = _render(labels, codes, cells, *key)
        arrays[f"y_{split}"] = labels
    width = len(str(num_classes - 1))
    return ImageDataset(
        name=f"motifs{num_classes}",
        class_names=tuple(f"motif{index:0{width}d}" for index in range(num_classes)),
        source=f"embedded, generated with seed {seed}",
        **arrays,
    )
