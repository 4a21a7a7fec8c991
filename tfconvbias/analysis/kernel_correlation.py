"""How alike the kernels of a layer are."""

import keras
import numpy as np

from tfconvbias.analysis.sparsity import kernels
from tfconvbias.arguments import checked


@checked
def pairwise_correlation(kernel: np.ndarray) -> float:
    r"""Mean absolute correlation of the pairs of live kernels of a layer.

    $$\frac{2}{J(J-1)} \sum_{i<j} \left|\frac{(k_i - \bar k_i) \cdot (k_j - \bar k_j)}
    {\|k_i - \bar k_i\|\,\|k_j - \bar k_j\|}\right|$$

    over the J kernels with a weight that is not zero; a constant kernel correlates with none.

    Args:
        kernel: `(…, kernels)`.

    Returns:
        A number in [0, 1]; NaN with fewer than two live kernels.

    Example:
        >>> round(pairwise_correlation(np.array([[1.0, 2.0, 1.0], [0.0, 0.0, -1.0]])), 6)
        1.0

    Reference:
        "Optimal Convolutional Architectures Via Structured Sparsity Regularizers", section 4; the
        draft does not say which mean, the absolute value is ours.
    """
    columns = np.reshape(kernel, (-1, np.shape(kernel)[-1])).astype("float64")
    columns = columns[:, columns.any(axis=0)]
    count = columns.shape[1]
    if count < 2:
        return float("nan")
    columns = columns - columns.mean(axis=0)
    norms = np.linalg.norm(columns, axis=0)
    columns /= np.where(norms > 0, norms, 1.0)
    pairs = np.abs(columns.T @ columns)[np.triu_indices(count, 1)]
    return float(np.minimum(pairs, 1.0).mean())


@checked
def kernel_correlation(model: keras.Model) -> dict[str, float]:
    """`pairwise_correlation` of each convolution's kernels.

    Args:
        model: a built Keras model.

    Returns:
        Layer name → mean absolute correlation, NaN with fewer than two live kernels.

    Example:
        >>> layer = keras.layers.Conv2D(1, 3, name="conv1")
        >>> kernel_correlation(keras.Sequential([keras.Input((8, 8, 3)), layer]))
        {'conv1': nan}
    """
    return {
        name: pairwise_correlation(keras.ops.convert_to_numpy(kernel))
        for name, kernel in kernels(model).items()
        if len(kernel.shape) > 2
    }
