"""How many weights of each layer are left."""

import keras
from keras import ops

from tfconvbias.arguments import checked
from tfconvbias.optimizers import is_kernel


@checked
def kernels(model: keras.Model) -> dict[str, keras.Variable]:
    """The kernels of a built model by layer, in the model's order.

    Kernels are the variables that `tfconvbias.optimizers.is_kernel` chooses: those of dense,
    convolutional, locally connected and recurrent layers, not biases, BatchNorm variables or
    embeddings.

    Args:
        model: a built Keras model, nested or not.

    Returns:
        Layer name → variable. Where a layer has several kernels, or two layers of nested models
        share a name, the variable's path stands in place of the layer's name.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="fc")])
        >>> list(kernels(model))
        ['fc']
    """
    found = [variable for variable in model.weights if is_kernel(variable)]
    names = [_layer_name(variable) for variable in found]
    return {
        variable.path if names.count(name) > 1 else name: variable
        for name, variable in zip(names, found, strict=True)
    }


@checked
def num_nonzeros(model: keras.Model) -> dict[str, int]:
    """Count the entries of each kernel that are not exactly zero.

    Args:
        model: a built Keras model.

    Returns:
        Layer name → count, in the model's order.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="fc")])
        >>> num_nonzeros(model)
        {'fc': 6}
    """
    return {
        name: int(ops.count_nonzero(ops.convert_to_tensor(kernel)))
        for name, kernel in kernels(model).items()
    }


def _layer_name(variable: keras.Variable) -> str:
    scopes = variable.path.split("/")
    return scopes[-2] if len(scopes) > 1 else variable.path
