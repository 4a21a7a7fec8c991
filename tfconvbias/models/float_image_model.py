"""A model on float images that says so when raw integer images reach it."""

import warnings
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="tfconvbias")
class FloatImageModel(keras.Model):
    """A functional model that warns when it is called on integers, such as raw uint8 images.

    Keras turns integers into floats without a word, so that a network without preprocessing would
    train on values from 0 to 255. The warning is given while the step is traced, from the dtype
    alone: the compiled step does not contain it. Float images from 0 to 255 go unnoticed, since
    finding them would take a look at the values.

    Args:
        inputs: As for `keras.Model`.
        outputs: As for `keras.Model`.

    Example:
        >>> inputs = keras.Input((4, 4, 3))
        >>> model = FloatImageModel(inputs, keras.layers.Flatten()(inputs))
        >>> model.output_shape
        (None, 48)
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        for tensor in keras.tree.flatten(inputs):
            dtype = keras.backend.standardize_dtype(tensor.dtype)
            if "int" in dtype:
                warnings.warn(
                    f"The model {self.name!r} takes normalised float images, but received {dtype}. "
                    "Build it with preprocessing=tfconvbias.data.preprocessing(dataset), or divide "
                    "the images by 255 and normalise them.",
                    UserWarning,
                    stacklevel=2,
                )
        return super().call(inputs, training=training, mask=mask)
