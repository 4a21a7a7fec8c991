"""AlexNet as the embedding paper shapes it for small images."""

import keras

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.models import blocks, vanilla_cnn
from tfconvbias.models.model_family import ModelFamily

_LAYERS = (
    (64, 4, 2, 2, True),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)
"""Filters, kernel size, strides, padding of each convolution, and whether a max-pool follows."""


@ModelFamily
@checked
def AlexNet(
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: PositiveInt = 100,
    units: int = 512,
    dropout_rate: float = 0.5,
    initialization: str = "torch",
    preprocessing: keras.layers.Layer | None = None,
    name: str = "alexnet",
) -> keras.Model:
    """AlexNet for images of about 32×32, as in the appendix of the embedding paper.

    ```
    conv1  zero padding 2, 4×4, stride 2, 64 → ReLU → max-pool 3×3, stride 2
    conv2  zero padding 2, 5×5, 192          → ReLU → max-pool 3×3, stride 2
    conv3  zero padding 1, 3×3, 384          → ReLU
    conv4  zero padding 1, 3×3, 256          → ReLU
    conv5  zero padding 1, 3×3, 256          → ReLU → max-pool 3×3, stride 2
    fc1    dropout → 512 → ReLU
    fc2    dropout → 512 → ReLU
    head   c logits
    ```

    With 100 classes it has 2,895,076 parameters, and 126,878,756 (dense, padding folded),
    239,095,844 (dense, explicit padding) or 40,276,004 (locally connected) once embedded.

    Args:
        input_shape: `(rows, cols, channels)`, of 28 rows and columns at least.
        classes: c, the number of logits.
        units: Units of fc1 and fc2.
        dropout_rate: Rate of the dropout before fc1 and before fc2; 0 adds no layer.
        initialization: `"torch"`, U(±1/√fan_in) for kernels and biases; `"keras"`, Glorot uniform
            kernels and zero biases.
        preprocessing: Layer from uint8 images to network input, or `None` for float input.
        name: Model name.

    Returns:
        A functional model from `(batch, *input_shape)` to float32 logits `(batch, classes)`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> AlexNet(classes=10).count_params()
        2848906

    Reference:
        d'Ascoli et al., 2019, appendix B; layer sizes from the paper's code.
    """
    blocks.check_positive(classes=classes, units=units)
    blocks.check_dropout_rate(dropout_rate)
    vanilla_cnn.check_initialization(initialization)
    inputs, x = blocks.image_inputs(input_shape, preprocessing)
    vanilla_cnn.check_size(input_shape, 28)
    options = {"initialization": initialization}
    for index, (filters, size, strides, padding, is_pooled) in enumerate(_LAYERS, start=1):
        layer = f"conv{index}"
        x = vanilla_cnn.padded_conv_relu(x, filters, size, strides, padding, name=layer, **options)
        if is_pooled:
            x = keras.layers.MaxPooling2D(3, strides=2, name=f"{layer}_pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for layer in ("fc1", "fc2"):
        x = blocks.dropout(x, dropout_rate, layer)
        x = vanilla_cnn.dense(x, units, name=layer, **options)
        x = keras.layers.ReLU(name=f"{layer}_relu")(x)
    logits = vanilla_cnn.dense(x, classes, name="head", dtype="float32", **options)
    return blocks.image_model(inputs, logits, name=name)
