"""3-FC: the plain fully connected baseline."""

from typing import Any

import keras

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.models import blocks
from tfconvbias.models.model_family import ModelFamily
from tfconvbias.models.parameter_counts import check_memory


@ModelFamily
@checked
def ThreeFC(
    hidden_units: int,
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: PositiveInt = 10,
    dropout_rate: float = 0.0,
    preprocessing: keras.layers.Layer | None = None,
    kernel_initializer: Any = "glorot_uniform",
    kernel_regularizer: Any = None,
    name: str = "three_fc",
) -> keras.Model:
    """Flatten, two equal hidden layers with BatchNorm and ReLU (`fc1`, `fc2`), logits (`fc3`).

    The kernels hold (d + h + c)·h parameters for d input values, h hidden units and c classes.

    Args:
        hidden_units: h, the units of `fc1` and of `fc2`.
        input_shape: `(rows, cols, channels)`.
        classes: c, the number of logits.
        dropout_rate: Rate of the dropout before the last two layers; 0 adds no layer.
        preprocessing: Layer from uint8 images to network input, or `None` for float input.
        kernel_initializer: Initializer of every kernel.
        kernel_regularizer: Regularizer of every kernel.
        name: Model name.

    Returns:
        A functional model from `(batch, *input_shape)` to float32 logits `(batch, classes)`.

    Raises:
        ValueError: If an argument is out of its range.
        MemoryError: If the network would not fit into memory; nothing is allocated then.

    Example:
        >>> tuple(ThreeFC(16, input_shape=(8, 8, 3)).get_layer("fc1").kernel.shape)
        (192, 16)

    Reference:
        Neyshabur, "Towards Learning Convolutions from Scratch", 2020, appendix A.1.
    """
    blocks.check_positive(hidden_units=hidden_units, classes=classes)
    blocks.check_dropout_rate(dropout_rate)
    options = {
        "kernel_initializer": kernel_initializer,
        "kernel_regularizer": kernel_regularizer,
    }
    inputs, x = blocks.image_inputs(input_shape, preprocessing)
    check_memory("three_fc", hidden_units, input_shape=input_shape, classes=classes)
    x = blocks.Volume(x, input_shape).flat()
    x = blocks.hidden_dense(x, hidden_units, name="fc1", dropout_rate=0.0, **options)
    x = blocks.hidden_dense(x, hidden_units, name="fc2", dropout_rate=dropout_rate, **options)
    logits = blocks.classifier(x, classes, name="fc3", dropout_rate=dropout_rate, **options)
    return blocks.image_model(inputs, logits, name=name)
