"""One penalty made to fit the kernels of every layer of a model."""

from typing import Any

import keras

from tfconvbias.arguments import checked
from tfconvbias.graph import Kernel, facts_of, read_graph
from tfconvbias.optimizers import Proximal
from tfconvbias.regularizers.complexity import following_gammas
from tfconvbias.regularizers.kernel_number import KernelNumber
from tfconvbias.regularizers.kernel_size import KernelSize
from tfconvbias.regularizers.structured_sparsity import StructuredSparsity


def penalty_for(
    penalty: StructuredSparsity, kernel: Kernel, shape: tuple[int, ...], kind: str
) -> StructuredSparsity:
    """A penalty as it stands for one of a layer's kernels.

    Args:
        penalty: `KernelNumber` or `KernelSize`; its own `kernel_axes` do not matter.
        kernel: Says along which axes the layer's kernels are counted.
        shape: The kernel's shape. Where it has no spatial axes of one length, it has no sizes, and
            a `KernelNumber` takes the place of a `KernelSize`.
        kind: The layer's kind, as in `LayerFacts`; a locally connected layer has no one window.
    """
    config = {**penalty.get_config(), "kernel_axes": kernel.output_axes}
    fitted = type(penalty).from_config(config)
    if isinstance(fitted, KernelSize) and (kind == "local" or len(set(shape[:-2])) != 1):
        return KernelNumber(fitted.alpha_value(), fitted.norm, fitted.kernel_axes)
    return fitted


@checked
def layer_penalties(model: keras.Model, penalty: StructuredSparsity) -> dict[str, Any]:
    """Path of each kernel of a model → the penalty as it stands for that kernel.

    For `tfconvbias.optimizers.Proximal(penalties=…)`.

    Args:
        model: A functional `keras.Model` or a built `keras.Sequential`.
        penalty: `KernelNumber` or `KernelSize`.

    Raises:
        ValueError: If the model's graph cannot be read.

    Example:
    >>> each = keras.layers.DepthwiseConv2D(3, name="each")
    >>> joined = keras.layers.Conv2D(4, (1, 5), name="all")
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), each, joined])
    >>> found = layer_penalties(model, KernelSize(0.0))
    >>> [(type(one).__name__, one.kernel_axes) for one in found.values()]
    [('KernelSize', (-2, -1)), ('KernelNumber', (-1,))]
    """
    found = {}
    for call in read_graph(model).calls:
        facts = facts_of(call.operation)
        if facts is not None and facts.is_resizable:
            for kernel in facts.kernels:
                variable = getattr(call.operation, kernel.attribute)
                shape = tuple(variable.shape)
                found[variable.path] = penalty_for(penalty, kernel, shape, facts.kind)
    return found


@checked
def proximal_optimizer(
    model: keras.Model,
    inner_optimizer: keras.optimizers.Optimizer | str,
    penalty: StructuredSparsity,
    alpha: Any,
    use_gammas: bool = True,
    **options: Any,
) -> Proximal:
    """The `Proximal` optimizer for a model: axes of the kernels and γ come from its layers.

    Args:
        model: A functional `keras.Model` or a built `keras.Sequential`, which is to be trained.
        inner_optimizer: As for `Proximal`.
        penalty: `KernelNumber` or `KernelSize`.
        alpha: As for `Proximal`.
        use_gammas: Whether the penalty acts on γ where a BatchNormalization follows a kernel.
        options: Further arguments of `Proximal`, such as `penalized`.

    Raises:
        ValueError: If the model's graph cannot be read, and as `Proximal` does.

    Example:
    >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), alpha=0.35)
    >>> optimizer = proximal_optimizer(model, "sgd", KernelNumber(0.0), alpha=1e-3)
    >>> len(optimizer.gammas)
    52
    """
    return Proximal(
        inner_optimizer,
        penalty,
        alpha,
        gammas=following_gammas(model) if use_gammas else None,
        penalties=layer_penalties(model, penalty),
        **options,
    )
