"""Random functional models with every kind of layer that the walk knows, and random zeros."""

import keras
import numpy as np
from keras import layers, ops


def random_images(rng, shape, count=3):
    return rng.normal(size=(count, *shape)).astype("float32")


def outputs_of(model, images):
    results = model(images, training=False)
    return [np.asarray(ops.convert_to_numpy(r)) for r in keras.tree.flatten(results)]


def relative_difference(model, other, images):
    """Largest difference of the outputs, relative to their largest magnitude."""
    worst = 0.0
    for left, right in zip(outputs_of(model, images), outputs_of(other, images), strict=True):
        assert left.shape == right.shape
        scale = max(np.abs(left).max(), 1e-6)
        worst = max(worst, float(np.abs(left - right).max() / scale))
    return worst


def scramble(model, rng, dead_share=0.3, clear_share=0.5):
    """Random weights everywhere; a share of the kernels zero, of those a share silenced.

    A silenced kernel has no bias, and what normalizes it neither scale nor shift; others go on to
    emit a constant. Some kernels get zero rings, some input channels zero weights.
    """
    silent: dict[int, np.ndarray] = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            scramble(layer, rng, dead_share, clear_share)
            continue
        weights = [rng.normal(0, 0.5, w.shape).astype("float32") for w in layer.get_weights()]
        if isinstance(layer, layers.BatchNormalization):
            weights[-1] = np.abs(weights[-1]) + 0.5
            dead = silent.get(weights[0].shape[-1])
            if dead is not None:
                for weight in weights[:-1]:
                    weight[dead] = 0
        elif dead_share and type(layer) in (layers.Conv2D, layers.Dense):
            kernel = weights[0]
            dead = rng.random(kernel.shape[-1]) < dead_share
            if rng.random() < 0.03:
                dead[:] = True
            kernel[..., dead] = 0
            if kernel.ndim == 4:
                if rng.random() < 0.3:
                    kernel[0] = 0
                if rng.random() < 0.3:
                    kernel[:, -1] = 0
                if rng.random() < 0.1:
                    kernel[:, :, : kernel.shape[2] // 2] = 0
            cleared = dead & (rng.random(dead.shape) < clear_share)
            if len(weights) > 1:
                weights[1][cleared] = 0
            silent[kernel.shape[-1]] = cleared
        elif dead_share and type(layer) is layers.DepthwiseConv2D and rng.random() < 0.3:
            weights[0][:, :, rng.random(weights[0].shape[2]) < 0.4] = 0
        if weights:
            layer.set_weights(weights)


def random_model(rng, depth=7):
    """A functional model of random layers, widths, shortcuts and concatenations."""
    size = int(rng.integers(6, 10))
    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(8, 3, padding="same")(inputs)
    streams = [x]
    for _ in range(depth):
        kind = rng.choice(list(_BLOCKS))
        x = _BLOCKS[kind](x, streams, rng)
        streams.append(x)
    head = rng.choice(["flatten", "average", "maximum", "reshape"])
    if head == "flatten":
        x = layers.Flatten()(x)
    elif head == "reshape":
        x = layers.Reshape((-1,))(x)
    elif head == "average":
        x = layers.GlobalAveragePooling2D()(x)
    else:
        x = layers.GlobalMaxPooling2D()(x)
    x = layers.Dense(6, activation=str(rng.choice(["relu", "tanh", "softplus"])))(x)
    outputs = layers.Dense(4, activation=str(rng.choice(["linear", "softmax"])))(x)
    return keras.Model(inputs, outputs)


def _conv(x, streams, rng):
    activation = str(rng.choice(["relu", "linear", "sigmoid", "silu"]))
    return layers.Conv2D(
        int(rng.integers(3, 9)),
        int(rng.integers(1, 6)),
        strides=int(rng.choice([1, 1, 2])),
        padding="same",
        use_bias=bool(rng.random() < 0.7),
        activation=activation,
    )(x)


def _valid_conv(x, streams, rng):
    size = int(rng.integers(1, 4))
    if x.shape[1] < size or x.shape[2] < size:
        return x
    return layers.Conv2D(int(rng.integers(3, 9)), size, activation="relu")(x)


def _dilated_conv(x, streams, rng):
    return layers.Conv2D(int(rng.integers(3, 9)), 3, dilation_rate=2, padding="same")(x)


def _grouped_conv(x, streams, rng):
    x = layers.Conv2D(8, 1)(x)
    return layers.Conv2D(8, 3, padding="same", groups=int(rng.choice([2, 4])))(x)


def _residual(x, streams, rng):
    width = x.shape[-1]
    y = layers.Conv2D(6, 3, padding="same", use_bias=False)(x)
    y = layers.BatchNormalization()(y)
    y = layers.ReLU()(y)
    y = layers.Conv2D(width, 3, padding="same", use_bias=False)(y)
    y = layers.BatchNormalization()(y)
    return layers.ReLU()(layers.Add()([x, y]))


def _op_residual(x, streams, rng):
    y = layers.Conv2D(x.shape[-1], 3, padding="same")(x)
    return ops.relu(x + y * 2.0)


def _inverted(x, streams, rng):
    y = layers.Conv2D(8, 1, use_bias=False)(x)
    y = layers.BatchNormalization()(y)
    y = layers.ReLU(6.0)(y)
    y = layers.DepthwiseConv2D(
        3, strides=int(rng.choice([1, 2])), padding="same", depth_multiplier=int(rng.choice([1, 2]))
    )(y)
    y = layers.BatchNormalization()(y)
    y = layers.Activation("relu6")(y)
    return layers.Conv2D(5, 1)(y)


def _squeeze(x, streams, rng):
    width = x.shape[-1]
    s = layers.GlobalAveragePooling2D()(x)
    s = layers.Reshape((1, 1, width))(s)
    s = layers.Conv2D(4, 1, activation="swish")(s)
    s = layers.Conv2D(width, 1, activation="sigmoid")(s)
    return layers.Multiply()([x, s])


def _concatenate(x, streams, rng):
    other = streams[int(rng.integers(len(streams)))]
    if other.shape[1:3] != x.shape[1:3]:
        other = layers.Conv2D(4, 1)(x)
    return layers.Concatenate()([x, other])


def _pool(x, streams, rng):
    if min(x.shape[1:3]) < 2:
        return x
    return rng.choice([layers.MaxPooling2D, layers.AveragePooling2D])(2, 1, padding="same")(x)


def _pad(x, streams, rng):
    x = layers.ZeroPadding2D(((0, 1), (1, 0)))(x)
    return layers.Conv2D(5, 3, strides=2)(x) if min(x.shape[1:3]) >= 3 else x


def _separable(x, streams, rng):
    return layers.SeparableConv2D(6, 3, padding="same", depth_multiplier=2)(x)


def _transposed(x, streams, rng):
    return layers.Conv2DTranspose(5, 3, padding="same")(x)


def _prelu(x, streams, rng):
    return layers.PReLU(shared_axes=(1, 2))(layers.Dropout(0.3)(x))


def _maximum(x, streams, rng):
    y = layers.Conv2D(x.shape[-1], 3, padding="same")(x)
    return layers.Maximum()([x, y])


def _layer_norm(x, streams, rng):
    return layers.LayerNormalization()(x)


def _shared(x, streams, rng):
    width = x.shape[-1]
    conv = layers.Conv2D(width, 3, padding="same", activation="relu")
    return conv(conv(x))


_BLOCKS = {
    function.__name__: function
    for function in (
        _concatenate, _conv, _dilated_conv, _grouped_conv, _inverted, _layer_norm, _maximum,
        _op_residual, _pad, _pool, _prelu, _residual, _separable, _shared, _squeeze, _transposed,
        _valid_conv,
    )
}  # fmt: skip
