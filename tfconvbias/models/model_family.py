"""What turns a function that builds models into a family with trained members."""

import functools
from collections.abc import Callable
from typing import Generic, ParamSpec

import keras

from tfconvbias.arguments import checked
from tfconvbias.models.preset_files import PresetCard, load_preset, presets

Arguments = ParamSpec("Arguments")


@checked
class ModelFamily(Generic[Arguments]):
    """A function that builds models, with `from_preset` for those that come trained.

    Calling it calls the function, whose signature and docstring it keeps.

    Args:
        build: Returns an untrained model.

    Example:
        >>> from tfconvbias.models import SConv
        >>> SConv(2, input_shape=(8, 8, 3)).name
        's_conv'
    """

    __name__: str

    def __init__(self, build: Callable[Arguments, keras.Model]):
        self._build = build
        functools.update_wrapper(self, build)

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> keras.Model:
        """Build an untrained model."""
        return self._build(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<model family {self.__name__}>"

    def from_preset(self, name: str) -> keras.Model:
        """Load a trained model of this family; its file is checked first.

        Args:
            name: One of `presets()`.

        Returns:
            The model, uncompiled, from raw uint8 images to logits.

        Raises:
            PresetError: If there is no such preset in this family, or its file is missing or not
                the one that the manifest describes.

        Example:
            >>> from tfconvbias.models import SConv
            >>> SConv.from_preset("s_fc_beta_lasso_motifs10").output_shape
            (None, 10)
        """
        return load_preset(name, family=self.__name__)

    def presets(self) -> dict[str, PresetCard]:
        """The trained models of this family: name → card."""
        return presets(self.__name__)
