"""Weight files of Keras 2, loaded into models with locally connected layers."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.graph import leaf_layers, read_graph
from tfconvbias.graph.calls import is_functional
from tfconvbias.layers.base_locally_connected import BaseLocallyConnected
from tfconvbias.layers.keras2_kernel import (
    Pairs,
    bias_from_keras2,
    kernel_from_keras2,
    looks_like_keras2,
)


@checked
def load_keras2_weights(model: keras.Model, path: str | Path, by_name: bool = False) -> list[str]:
    """Loads a weight file of Keras 2 into a model with `LocallyConnected1D` and `2D` layers.

    It does what `model.load_weights` does, and rearranges the kernels of locally connected layers,
    which Keras 2 stored in three layouts, one for each `implementation`. All other weights are
    loaded as they are. Either everything fits and is loaded, or the model stays as it was
    (`.h5` only).

    The file may be

    - an `.h5` of Keras 2 or `tf_keras`, written by `model.save("old.h5")` or
      `model.save_weights("old.h5")`;
    - a `.keras` or `.weights.h5` of Keras 2.12 or later, or of `tf_keras`, for which Keras itself
      matches the layers (`by_name` is not available).

    A SavedModel folder and a TensorFlow checkpoint must first be written as `.h5` by `tf_keras`.

    Where Keras 2's `padding="same"` differs from a convolution's, the error says which
    `keras.layers.ZeroPadding1D` or `2D` to put before the layer, which then has
    `padding="valid"`. Such a model takes its weights from an `.h5`.

    Args:
        model: A built model of the architecture of the old one.
        path: The file.
        by_name: Layers are matched one after the other, in the model's order, as Keras 2 did.
            With `True` layers of equal names are matched, and layers that only one side has are
            left out.

    Returns:
        Names of the layers, in `model.layers`, that hold weights of the file.

    Raises:
        ValueError: If the file is none of these, lacks a layer, or a weight does not fit; if Keras
            2 placed the windows of `padding="same"` differently; the message says what to do.
        FileNotFoundError: If there is no file.

    Example:
        >>> import tfconvbias as tcb
        >>> local = tcb.layers.LocallyConnected2D(4, 3, name="local")
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), local, keras.layers.Flatten()])
        >>> load_keras2_weights(model, "old.h5")  # doctest: +SKIP
        ['local']
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file. Received: path={str(path)!r}")
    if not model.built:
        raise ValueError(
            "The model has no weights yet. Give it an `Input` or call it once. "
            f"Received: model={model.name!r}"
        )
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            if "layer_names" in file.attrs or "layer_names0" in file.attrs:
                return _load(file, file, model, path, by_name)
            if isinstance(file.get("model_weights"), h5py.Group):
                return _load(file, file["model_weights"], model, path, by_name)
            is_known = "layers" in file or "_layer_checkpoint_dependencies" in file
    else:
        is_known = zipfile.is_zipfile(path)
    if not is_known:
        raise ValueError(
            "The file holds no weights of a Keras 2 model: it must be an .h5, .weights.h5 or "
            ".keras file. A SavedModel or checkpoint is first loaded by tf_keras and saved as "
            f"'old.h5'. Received: path={str(path)!r}"
        )
    if by_name:
        raise ValueError(
            "`by_name` is for the .h5 files of Keras 2 only: Keras itself matches the layers of "
            f".keras and .weights.h5 files. Received: path={str(path)!r}"
        )
    for layer in _locally_connected(model):
        if layer.rank < 3 and looks_like_keras2(layer):
            raise ValueError(
                "The shape of this layer's kernel does not tell implementation 2 of Keras 2 from "
                "this package: save the model as 'old.h5' with tf_keras and load that. "
                f"Received: layer {layer.name!r} with kernel {tuple(layer.kernel.shape)}"
            )
    model.load_weights(path)
    return [layer.name for layer in model.layers if layer.weights]


def _load(
    file: h5py.File, group: h5py.Group, model: keras.Model, path: Path, by_name: bool
) -> list[str]:
    _check_version(group, path)
    saved = {name: _weights(group[name], path) for name in _strings(group, "layer_names")}
    pairs = _pairs_by_name(saved, model) if by_name else _pairs_in_order(saved, model, path)
    if not pairs:
        raise ValueError(
            f"No layer has the name of a layer in the file. Received: layers "
            f"{[layer.name for layer in model.layers]}, file {path.name} with {list(saved)}"
        )
    local_layers = list(_locally_connected(model))
    kernels = {id(layer.kernel): layer for layer in local_layers}
    biases = {id(layer.bias): layer for layer in local_layers if layer.use_bias}
    margins, configs = _margins(model), _configs(file)
    changes = []
    targets = [(layer.name, _legacy_order(layer), saved[name]) for layer, name in pairs]
    own = _weights(group["top_level_model_weights"], path) if _has_own(group) else {}
    if own:
        targets.append((model.name, _own_weights(model), own))
    for target, variables, values in targets:
        if len(variables) != len(values):
            raise ValueError(
                f"Layer {target!r} has {len(variables)} weights, {path.name} has {len(values)} for "
                f"it. Received: {[v.path for v in variables]} and {list(values)}"
            )
        for variable, (name, value) in zip(variables, values.items(), strict=True):
            if id(variable) in kernels:
                local = kernels[id(variable)]
                _check_config(local, configs.get(name.split("/")[-2:][0]), path)
                value = kernel_from_keras2(value, local, margins.get(id(local)))
            if tuple(variable.shape) != value.shape:
                raise ValueError(
                    f"The weight {variable.path!r} of layer {target!r} has shape "
                    f"{tuple(variable.shape)}. Received: {name!r} of {path.name} with shape "
                    f"{value.shape}"
                )
            if id(variable) in biases:
                value = bias_from_keras2(value, biases[id(variable)])
            changes.append((variable, value))
    for variable, value in changes:
        variable.assign(value)
    return [layer.name for layer, _ in pairs]


def _check_version(group: h5py.Group, path: Path) -> None:
    version, backend = (
        value.decode() if isinstance(value, bytes) else value
        for value in (group.attrs.get("keras_version", "1"), group.attrs.get("backend", ""))
    )
    if version.startswith("3"):
        raise ValueError(
            "The file was written by Keras 3: load it with `model.load_weights`. "
            f"Received: {path.name} of Keras {version}"
        )
    if not version.startswith("2") or backend in ("theano", "cntk"):
        raise ValueError(
            "The file's convolutions are laid out differently: load it in Keras 2 on TensorFlow "
            f"and save it again. Received: {path.name} of Keras {version} on {backend or 'Theano'}"
        )


def _strings(group: h5py.Group, name: str) -> list[str]:
    """A list of names, which Keras splits into `name0`, `name1`, … where it is long."""
    parts = [group.attrs[name]] if name in group.attrs else []
    while name not in group.attrs and f"{name}{len(parts)}" in group.attrs:
        parts.append(group.attrs[f"{name}{len(parts)}"])
    return [str(v.decode() if isinstance(v, bytes) else v) for part in parts for v in part]


def _weights(group: h5py.Group, path: Path) -> dict[str, np.ndarray]:
    weights = {}
    for name in _strings(group, "weight_names"):
        dataset = group[name]
        # A link could reach into other files of the reader.
        if dataset.file.filename != str(path) or dataset.external or dataset.is_virtual:
            raise ValueError(f"The file refers to another file. Received: {name!r} of {path.name}")
        weights[name] = np.asarray(dataset)
    return weights


def _has_own(group: h5py.Group) -> bool:
    return isinstance(group.get("top_level_model_weights"), h5py.Group)


def _legacy_order(layer: keras.layers.Layer) -> list:
    """A layer's weights in the order of the file: those that are trained come first."""
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _own_weights(model: keras.Model) -> list:
    """Weights that belong to the model itself and to none of its layers."""
    of_layers = {id(weight) for layer in model.layers for weight in layer.weights}
    return [weight for weight in _legacy_order(model) if id(weight) not in of_layers]


def _pairs_in_order(
    saved: dict[str, dict], model: keras.Model, path: Path
) -> list[tuple[keras.layers.Layer, str]]:
    layers = [layer for layer in model.layers if layer.weights]
    names = [name for name, weights in saved.items() if weights]
    if len(layers) != len(names):
        raise ValueError(
            f"The model has {len(layers)} layers with weights, {path.name} has {len(names)}. "
            f"Received: {[layer.name for layer in layers]} and {names}"
        )
    return list(zip(layers, names, strict=True))


def _pairs_by_name(
    saved: dict[str, dict], model: keras.Model
) -> list[tuple[keras.layers.Layer, str]]:
    return [(layer, layer.name) for layer in model.layers if saved.get(layer.name)]


def _locally_connected(model: keras.Model) -> Iterator[BaseLocallyConnected]:
    """The locally connected layers, also those in nested models and in wrappers."""
    for leaf in leaf_layers(model):
        layer = leaf.layer if isinstance(leaf, keras.layers.Wrapper) else leaf
        if isinstance(layer, BaseLocallyConnected):
            yield layer


def _margins(model: keras.Model) -> dict[int, Pairs]:
    """The zeros around the input of each layer that directly follows a `ZeroPadding` layer."""
    padding_layers = (keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D)
    margins: dict[int, Pairs] = {}
    is_padded = any(isinstance(leaf, padding_layers) for leaf in leaf_layers(model))
    if not (is_padded and is_functional(model)):
        return margins
    calls = read_graph(model).calls
    for call in calls:
        sources = {calls[tensor.call].operation for tensor in call.inputs}
        if len(sources) == 1 and isinstance(call.operation, BaseLocallyConnected):
            (source,) = sources
            if isinstance(source, keras.layers.ZeroPadding1D):
                margins[id(call.operation)] = (source.padding,)
            elif isinstance(source, keras.layers.ZeroPadding2D):
                margins[id(call.operation)] = source.padding
    return margins


def _configs(file: h5py.File) -> dict[str, dict]:
    """The configurations of the locally connected layers of a whole-model file, by name."""
    found: dict[str, dict] = {}

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if str(node.get("class_name")).startswith("LocallyConnected"):
                config = node["config"]
                found[config["name"]] = config
            node = list(node.values())
        if isinstance(node, list):
            for child in node:
                walk(child)

    walk(json.loads(file.attrs.get("model_config", "{}")))
    return found


def _check_config(layer: BaseLocallyConnected, config: dict | None, path: Path) -> None:
    """Refuses kernels whose shape fits by chance, such as 2×3 windows for 3×2 ones."""
    if config is None:
        return
    for name in ("kernel_size", "strides", "data_format"):
        theirs, ours = config[name], getattr(layer, name)
        if (tuple(theirs) if isinstance(theirs, list) else theirs) != ours:
            raise ValueError(
                f"Layer {layer.name!r} has {name}={ours}. "
                f"Received: {path.name}, whose layer {config['name']!r} has {name}={theirs}"
            )
