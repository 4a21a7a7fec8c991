"""What is measured of an embedded network: landscape, paths to the CNN, pictures of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfconvbias.lazy import analysis, data, embedding, keras
from tfconvbias.studies.dascoli2019.config import SwitchTimeConfig

_SLICE = 200


def landscape(
    model: keras.Model, dataset: data.ImageDataset, config: SwitchTimeConfig
) -> dict[str, float]:
    """‖∇L‖ and the largest Hessian eigenvalue of the loss on `curvature_samples` training images.

    Returns:
        `gradient_norm` and `eigenvalue`; nothing where no images are asked for.
    """
    num = min(config.curvature_samples, len(dataset.x_train))
    if not num:
        return {}
    sample = dataset.limit(num_train=num, seed=config.seed)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    derivatives = analysis.LossDerivatives(
        model, sample.x_train, sample.y_train, loss, batch_size=config.batch_size
    )
    norm = float(np.linalg.norm(derivatives.gradient()))
    # Few Lanczos vectors, since each is as long as the embedded model.
    top = analysis.top_hessian_eigenvalues(derivatives, tolerance=1e-2, num_lanczos=6)
    return {"gradient_norm": norm, "eigenvalue": float(top.values[0])}


def measure_paths(
    cnn: keras.Model, model: keras.Model, dataset: data.ImageDataset, config: SwitchTimeConfig
) -> dict[str, dict[str, Any]]:
    """Loss and accuracy between the CNN's solution and the embedded network's.

    Returns:
        Method of interpolation → what `as_interpolations` reads, as JSON holds it.
    """
    if not config.num_points:
        return {}
    num = min(5 * data.EVALUATION_BATCH_SIZE, len(dataset.x_train), len(dataset.x_test))
    sample = dataset.limit(num_train=num, num_test=num, seed=config.seed)
    sets = {"train": sample.split("train"), "test": sample.split("test")}
    string = dataset.limit(
        num_train=min(config.string_samples, len(dataset.x_train)), seed=config.seed
    )
    paths = {}
    for method in ("linear", "string", "output"):
        if method == "string" and not config.string_epochs:
            continue
        config.tell(f"interpolating: {method}")
        path = embedding.interpolate(
            cnn,
            model,
            sets,
            method,
            config.num_points,
            stiffness=config.stiffness,
            learning_rate=config.string_learning_rate,
            num_epochs=config.string_epochs,
            string_batch_size=config.batch_size,
            tolerance=config.string_tolerance,
            seed=config.seed,
            string_data=string.split("train"),
        )
        paths[method] = {
            "fractions": path.fractions.tolist(),
            "loss": {name: values.tolist() for name, values in path.loss.items()},
            "accuracy": {name: values.tolist() for name, values in path.accuracy.items()},
            "residuals": None if path.residuals is None else path.residuals.tolist(),
        }
    return paths


def as_interpolations(
    paths: Mapping[str, Mapping[str, Any]],
) -> dict[str, embedding.Interpolation]:
    """The results of `measure_paths` as `embedding.interpolate` returned them."""
    return {
        method: embedding.Interpolation(
            method,
            np.array(stored["fractions"]),
            {name: np.array(values) for name, values in stored["loss"].items()},
            {name: np.array(values) for name, values in stored["accuracy"].items()},
            None if stored["residuals"] is None else np.array(stored["residuals"]),
        )
        for method, stored in paths.items()
    }


def first_layer_image(model: keras.Model) -> np.ndarray:
    """The input weights of the first filter at the central position, on the input image.

    Of a wide convolution its first filter, which is as large as the inputs of all positions.
    """
    layer = next(embedding.embedded_layers(model))
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    if isinstance(layer, embedding.EmbeddedConv):
        return kernel[..., 0]
    if kernel.ndim > 2:
        rows, cols = kernel.shape[:2]
        return kernel[rows // 2, cols // 2, ..., 0]
    geometry = layer.geometry
    rows, cols = geometry.output_spatial_shape
    position = rows // 2 * cols + cols // 2
    return kernel[:, position * geometry.filters].reshape(geometry.input_shape)


def weight_slice(model: keras.Model) -> np.ndarray:
    """200 × 200 entries of the first layer's matrix, channel by channel as the paper draws it.

    Of a wide convolution the kernel of the first channel and filter.
    """
    layer = next(embedding.embedded_layers(model))
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    if isinstance(layer, embedding.EmbeddedConv):
        return kernel[:_SLICE, :_SLICE, 0, 0]
    if kernel.ndim > 2:
        return kernel.reshape(-1, kernel.shape[-1])[:_SLICE, :_SLICE]
    geometry = layer.geometry
    positions = int(np.prod(geometry.output_spatial_shape))
    rows = np.arange(min(_SLICE, int(np.prod(geometry.spatial_shape)))) * geometry.in_channels
    columns = np.arange(min(_SLICE, positions)) * geometry.filters
    return kernel[np.ix_(rows, columns)].T
