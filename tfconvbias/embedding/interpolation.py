r"""Paths between two solutions: straight, relaxed as an elastic string, or in output space.

This module is part of `embedding` and not of `analysis` because it embeds models: the solutions of
a CNN and of its eFCN lie in one space only after $\Phi$.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.analysis import LossDerivatives
from tfconvbias.arguments import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    checked,
)
from tfconvbias.embedding.deviation import embedded_layers
from tfconvbias.embedding.embed import embed
from tfconvbias.embedding.embedded_dense import EmbeddedDense
from tfconvbias.embedding.plan import is_embeddable
from tfconvbias.embedding.wide import EmbeddedConv
from tfconvbias.graph import leaf_layers
from tfconvbias.graph.facts import kind_of
from tfconvbias.graph.rebuild import recompute_constants

METHODS = ("linear", "string", "output")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Interpolation:
    """Loss and accuracy along a path.

    Attributes:
        method: `"linear"`, `"string"` or `"output"`.
        fractions: `(num_points,)`, the paper's α, from 0 (the first model) to 1 (the second).
        loss: Name of the data → `(num_points,)` mean losses.
        accuracy: Name of the data → `(num_points,)` shares of right answers.
        residuals: Of a string, `string_residual` of the straight line and after each epoch: how far
            it is from rest. `None` for the other methods.
    """

    method: str
    fractions: np.ndarray
    loss: dict[str, np.ndarray]
    accuracy: dict[str, np.ndarray]
    residuals: np.ndarray | None = None


@checked
def interpolate(
    a: keras.Model,
    b: keras.Model,
    datasets: Mapping[str, tuple[np.ndarray, np.ndarray]],
    method: str = "linear",
    num_points: PositiveInt = 11,
    *,
    loss: keras.losses.Loss | None = None,
    batch_size: PositiveInt = 500,
    stiffness: float = 1.0,
    learning_rate: PositiveFloat = 0.1,
    num_epochs: PositiveInt = 3,
    string_batch_size: int | None = 250,
    tolerance: NonNegativeFloat = 0.0,
    seed: NonNegativeInt = 0,
    string_data: tuple[np.ndarray, np.ndarray] | None = None,
) -> Interpolation:
    r"""Loss and accuracy on a path from one classifier to another.

    - `"linear"`: weights $(1 - \alpha)\,\theta_a + \alpha\,\theta_b$.
    - `"string"`: these points slide down the loss while springs hold neighbours together, as
      in `relax_string`, by the gradients of mini-batches that all points share. Weights that are
      not trained, such as moving statistics, stay interpolated, also for the gradients.
    - `"output"`: outputs $(1 - \alpha) f_a + \alpha f_b$, logits if the models put out logits.

    Args:
        a: First model. Where its weights do not have the second one's shapes it is embedded as `b`
            is: dense with folded or explicit padding, local, or wide, and the same layers of it.
        b: Second model. Neither model is changed.
        datasets: Name → inputs and integer labels, `(N,)` or `(N, 1)`, to measure on, such as train
            and test.
        method: `"linear"`, `"string"` or `"output"`.
        num_points: Points, both ends included.
        loss: `SparseCategoricalCrossentropy(from_logits=True)` by default.
        batch_size: Samples per batch.
        stiffness: k of the string.
        learning_rate: η of the string.
        num_epochs: Most passes of the string over its data.
        string_batch_size: Samples of each step of the string; `None`: all of them.
        tolerance: The string is at rest, and stops, after an epoch that leaves at most this share
            of the straight line's residual. With mini-batches their noise stays in it.
        seed: Seed of the order of the string's mini-batches.
        string_data: Inputs and labels whose loss the string follows; by default the first of
            `datasets`. A string holds `num_points` times the weights, in float32.

    Returns:
        An `Interpolation`.

    Raises:
        ValueError: If an argument is out of range, or the models do not fit together.

    Reference:
        d'Ascoli et al., 2019, appendix C and Figure 12. The defaults of the string are those of
        the paper's code.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {METHODS}. Received: method={method}")
    if num_points < 3:
        raise ValueError(f"`num_points` must be at least 3. Received: num_points={num_points}")
    if not datasets:
        raise ValueError("`datasets` must hold at least one pair of inputs and labels.")
    size_fits = string_batch_size is None or string_batch_size >= 1
    if num_epochs < 0 or tolerance < 0 or not size_fits:
        raise ValueError(
            "`num_epochs` and `tolerance` must not be negative, and `string_batch_size` positive. "
            f"Received: num_epochs={num_epochs}, tolerance={tolerance}, "
            f"string_batch_size={string_batch_size}"
        )
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    fractions = np.linspace(0.0, 1.0, num_points)
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in datasets}
    residuals: np.ndarray | None = None
    labels_of = {name: _labels(name, *pair) for name, pair in datasets.items()}

    def measure(name: str, outputs: np.ndarray) -> None:
        labels = labels_of[name]
        value = float(ops.convert_to_numpy(loss(labels, outputs)))
        results[name].append((value, float(np.mean(outputs.argmax(axis=-1) == labels))))

    if method == "output":
        for name, (x, _) in datasets.items():
            first, second = (m.predict(x, batch_size=batch_size, verbose=0) for m in (a, b))
            for fraction in fractions:
                measure(name, (1 - fraction) * first + fraction * second)
    else:
        scratch = _like(a, b)
        weights = [
            (v, *(ops.convert_to_numpy(end) for end in pair))
            for v, *pair in zip(scratch.weights, scratch.weights, b.weights, strict=True)
        ]
        string: np.ndarray | None = None
        if method == "string":
            x, y = string_data or next(iter(datasets.values()))
            derivatives = LossDerivatives(scratch, x, y, loss, batch_size=batch_size)
            trained = {id(variable) for variable in scratch.trainable_variables}
            statistics = [entry for entry in weights if id(entry[0]) not in trained]

            def gradient(point: np.ndarray, number: int, rows: Any = None) -> np.ndarray:
                _interpolate(scratch, statistics, fractions[number])
                _assign(scratch.trainable_variables, point)
                return derivatives.gradient(rows)

            flat = [_flat(m.trainable_variables) for m in (scratch, b)]
            string = np.empty((num_points, len(flat[0])), flat[0].dtype)
            for index, fraction in enumerate(fractions):
                string[index] = (1 - fraction) * flat[0] + fraction * flat[1]
            found = [string_residual(string, gradient, stiffness)]
            rng = np.random.default_rng(seed)
            size = min(string_batch_size or len(x), len(x))
            for _ in range(num_epochs):
                for rows in np.split(rng.permutation(len(x)), range(size, len(x), size)):
                    step = functools.partial(gradient, rows=rows)
                    relax_string(string, step, stiffness, learning_rate, 1)
                found.append(string_residual(string, gradient, stiffness))
                if found[-1] <= tolerance * found[0]:
                    break
            residuals = np.array(found)
        for index, fraction in enumerate(fractions):
            _interpolate(scratch, weights, fraction)
            if string is not None:
                _assign(scratch.trainable_variables, string[index])
            for name, (x, _) in datasets.items():
                measure(name, scratch.predict(x, batch_size=batch_size, verbose=0))
    return Interpolation(
        method,
        fractions,
        {name: np.array([value for value, _ in rows]) for name, rows in results.items()},
        {name: np.array([value for _, value in rows]) for name, rows in results.items()},
        residuals,
    )


@checked
def relax_string(
    points: np.ndarray,
    gradient: Callable[[np.ndarray, int], np.ndarray],
    stiffness: float,
    learning_rate: PositiveFloat,
    num_steps: PositiveInt,
) -> np.ndarray:
    r"""Gradient descent of the interior points of a path, with springs between neighbours.

    It minimises, end points fixed,

    $$\sum_{i=2}^{n-1} L(x_i) + \tfrac{k}{2} \sum_{i=1}^{n-1} \lVert x_{i+1} - x_i \rVert^2$$

    Each step goes down L explicitly and along the springs implicitly,
    $x \leftarrow (1 + \eta k A)^{-1} (x - \eta \nabla L + \eta k\, e)$ with $A$ the second
    difference and $e$ the end points: stable for every k. A stiff string stays a straight line, in
    a loose one the points go their own ways.

    Args:
        points: `(n, size)` array, relaxed in place.
        gradient: Gradient of L, or an estimate of it, at a point that is given with its number.
        stiffness: k, not negative.
        learning_rate: η.
        num_steps: Steps.

    Returns:
        `points`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> line = np.linspace(0.0, 4.0, 5)[:, None]
        >>> relax_string(line, lambda x, number: x - 1.0, 0.0, 1.0, 1).ravel().tolist()
        [0.0, 1.0, 1.0, 1.0, 4.0]

    Reference:
        d'Ascoli et al., 2019, equation 2. The paper's code moves along the springs explicitly and
        without the learning rate, which diverges for k > 1.
    """
    if len(points) < 3 or stiffness < 0 or learning_rate <= 0 or num_steps < 0:
        raise ValueError(
            "A string needs 3 points, a stiffness and a number of steps that are not negative and "
            f"a positive learning rate. Received: {len(points)} points, stiffness={stiffness}, "
            f"learning_rate={learning_rate}, num_steps={num_steps}"
        )
    inner = len(points) - 2
    pull = learning_rate * stiffness
    system = np.eye(inner) * (1 + 2 * pull)
    system -= pull * (np.eye(inner, k=1) + np.eye(inner, k=-1))
    solve = np.linalg.inv(system)
    for _ in range(num_steps):
        for number, point in enumerate(points[1:-1], start=1):
            point -= (learning_rate * gradient(point, number)).astype(points.dtype)
        # In chunks: the system is tiny, the points are as long as a model.
        for start in range(0, points.shape[1], _CHUNK):
            part = points[:, start : start + _CHUNK]
            right = part[1:-1].astype(np.float64)
            right[0] += pull * part[0]
            right[-1] += pull * part[-1]
            part[1:-1] = solve @ right
    return points


@checked
def string_residual(
    points: np.ndarray, gradient: Callable[[np.ndarray, int], np.ndarray], stiffness: float
) -> float:
    r"""How far a string is from rest: the root mean square of the forces on its interior points.

    The force on a point is the gradient of the energy that `relax_string` minimises,
    $\nabla L(x_i) + k\,(2 x_i - x_{i-1} - x_{i+1})$.

    Args:
        points: `(n, size)` array.
        gradient: Gradient of L at a point that is given with its number.
        stiffness: k.

    Example:
        >>> line = np.array([[0.0], [1.0], [4.0]])
        >>> string_residual(line, lambda x, number: 3.0 * x, 1.0)
        1.0
    """
    squares = []
    for number, point in enumerate(points[1:-1], start=1):
        force = gradient(point, number).astype(np.float64)
        force += stiffness * (2 * point - points[number - 1] - points[number + 1])
        squares.append(float(np.sum(force**2)))
    return float(np.sqrt(np.mean(squares)))


def _like(a: keras.Model, b: keras.Model) -> keras.Model:
    """A model with the weights of `a` and the shapes of `b` that may be written on."""
    shapes = [tuple(v.shape) for v in b.weights]
    if [tuple(v.shape) for v in a.weights] == shapes:
        copy = keras.models.clone_model(b)
        copy.set_weights(a.get_weights())
        recompute_constants(copy)
        return copy
    dense = [layer for layer in embedded_layers(b) if isinstance(layer, EmbeddedDense)]
    is_explicit = any(any(map(any, layer.geometry.margin)) for layer in dense)
    wide = [layer for layer in embedded_layers(b) if isinstance(layer, EmbeddedConv)]
    target = "dense" if dense else "wide" if wide else "local"
    padding = "explicit" if is_explicit else "folded"
    # The largest of the kernels, since smaller volumes have smaller ones anyway.
    sizes = [layer.kernel_size for layer in wide]
    size = tuple(map(max, zip(*sizes, strict=True))) if target == "wide" else None
    embedded = embed(a, target, padding, _embedded_names(a, b, target), kernel_size=size)
    found = [tuple(v.shape) for v in embedded.weights]
    if found != shapes:
        raise ValueError(
            "The first model must have weights like the second, or like it when embedded. "
            f"Received: shapes {found} for the first, embedded, and {shapes} for the second"
        )
    return embedded


def _embedded_names(a: keras.Model, b: keras.Model, target: str) -> list[str] | None:
    """The layers of `a` that `b` has embedded; `None`, for all, where the names do not tell."""

    def embedded(model: keras.Model) -> set[str]:
        is_one = {
            "dense": lambda layer: isinstance(layer, EmbeddedDense),
            "wide": lambda layer: isinstance(layer, EmbeddedConv),
            "local": lambda layer: kind_of(layer) == "local",
        }[target]
        return {layer.name for layer in leaf_layers(model) if is_one(layer)}

    kept = embedded(a)
    made = embedded(b) - kept
    names = {layer.name for layer in leaf_layers(a) if is_embeddable(layer)}
    sources = [_source(name, names - kept) for name in made]
    told = sorted({source for source in sources if source is not None})
    return None if None in sources else told


def _source(name: str, names: set[str]) -> str | None:
    """The layer that one of this name was made from, also as one of several."""
    if name in names:
        return name
    return max((old for old in names if name.startswith(f"{old}_")), key=len, default=None)


def _labels(name: str, x: Any, y: Any) -> np.ndarray:
    labels = np.asarray(y)
    if labels.shape not in ((len(x),), (len(x), 1)):
        raise ValueError(
            f"The labels of '{name}' must be integers of shape ({len(x)},), one per input. "
            f"Received: shape {labels.shape}"
        )
    return labels.reshape(-1)


def _interpolate(
    model: keras.Model, weights: list[tuple[Any, np.ndarray, np.ndarray]], fraction: float
) -> None:
    """Set variables of a model between their two values."""
    for variable, first, second in weights:
        variable.assign((1 - fraction) * first + fraction * second)
    if weights:
        recompute_constants(model)


def _flat(variables: list) -> np.ndarray:
    return np.concatenate([ops.convert_to_numpy(v).ravel() for v in variables])


def _assign(variables: list, vector: np.ndarray) -> None:
    start = 0
    for variable in variables:
        size = int(np.prod(variable.shape))
        variable.assign(vector[start : start + size].reshape(variable.shape))
        start += size
