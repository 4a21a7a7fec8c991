"""Description length of a model, and the generalization bounds that follow from it."""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal, get_args

import keras
import numpy as np

from tfconvbias.analysis.equivalent_matrix import Entries, entries
from tfconvbias.arguments import OpenShare, PositiveInt, checked
from tfconvbias.graph import read_graph
from tfconvbias.graph.calls import is_functional
from tfconvbias.optimizers import is_kernel

WeightSharing = Literal["layers", "none", "values"]
Include = Literal["weights", "trainable", "kernels"]


@dataclasses.dataclass(frozen=True)
class LayerCounts:
    """What one layer adds to a model's description.

    Attributes:
        num_parameters: stored numbers.
        num_weights: entries of the equivalent dense matrix, zeros included.
        num_nonzeros: entries of that matrix that are not zero.
        num_values: parameters that these entries take their values from.
    """

    num_parameters: int = 0
    num_weights: int = 0
    num_nonzeros: int = 0
    num_values: int = 0

    def __add__(self, other: "LayerCounts") -> "LayerCounts":
        """Both layers' counts together."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return LayerCounts(*(a + b for a, b in pairs))


@dataclasses.dataclass(frozen=True)
class DescriptionLength:
    """The length of a model's descriptions, in bits.

    Attributes:
        layers: counts by layer. With `weight_sharing="values"` their `num_values` can add up to
            more than the model's, since layers share values.
        num_parameters: stored numbers.
        num_weights: n, entries of all equivalent dense matrices.
        num_nonzeros: ‖w‖₀, how many of them are not zero.
        num_values: k, parameters that the non-zero entries take their values from.
        parameter_bits: bits of all stored numbers, Σ b: the plainest description, for Theorem 1.
        value_bits: kb, bits of the k parameters.
    """

    layers: Mapping[str, LayerCounts]
    num_parameters: int
    num_weights: int
    num_nonzeros: int
    num_values: int
    parameter_bits: int
    value_bits: int

    @property
    def sharing_bits(self) -> float:
        """|d(g)|: bits that say which entries are not zero and which parameter each takes."""
        return sharing_bits(self.num_nonzeros, self.num_values, self.num_weights)

    @property
    def bits(self) -> float:
        """Bits of the whole sparse description: log₂ n for k itself, kb and |d(g)|."""
        head = math.log2(self.num_weights) if self.num_weights else 0.0
        return head + self.value_bits + self.sharing_bits

    def bound(self, train_loss: float, num_samples: int, delta: float = 0.05) -> float:
        """Theorem 2's bound on the expected loss, for a loss in [0, 1] of the training samples."""
        return generalization_bound(
            train_loss,
            self.value_bits + self.sharing_bits,
            num_samples,
            delta,
            num_weights=self.num_weights,
        )

    def as_dict(self) -> dict[str, float]:
        """The model's numbers by name, for logs and tables."""
        numbers = dataclasses.asdict(self)
        del numbers["layers"]
        return numbers | {"sharing_bits": self.sharing_bits, "bits": self.bits}


@checked
def sharing_bits(num_nonzeros: int, num_values: int, num_weights: int) -> float:
    """Bits that tell which weights are not zero and which parameter each of them takes.

    `|d(g)| = ‖w‖₀ log₂(k n) + 2 log₂ n`: an index and a parameter for each non-zero weight, and
    two counts. Index lengths are not rounded up to whole bits, as in the paper.

    Args:
        num_nonzeros: ‖w‖₀.
        num_values: k, at most ‖w‖₀.
        num_weights: n, at least ‖w‖₀.

    Raises:
        ValueError: If not 0 ≤ k ≤ ‖w‖₀ ≤ n, or k is 0 while ‖w‖₀ is not.

    Example:
        >>> sharing_bits(num_nonzeros=3, num_values=2, num_weights=16)
        23.0

    Reference:
        Neyshabur, "Towards Learning Convolutions from Scratch", 2020, Theorem 2.
    """
    if not 0 <= num_values <= num_nonzeros <= num_weights or (num_nonzeros and not num_values):
        raise ValueError(
            "Expected 0 <= num_values <= num_nonzeros <= num_weights, and a value where there is a "
            f"non-zero weight. Received: num_values={num_values}, num_nonzeros={num_nonzeros}, "
            f"num_weights={num_weights}"
        )
    if num_weights == 0:
        return 0.0
    index = math.log2(num_values * num_weights) if num_values else 0.0
    return num_nonzeros * index + 2 * math.log2(num_weights)


@checked
def generalization_bound(
    train_loss: float,
    bits: float,
    num_samples: PositiveInt,
    delta: OpenShare = 0.05,
    *,
    num_weights: int | None = None,
) -> float:
    """A bound on the expected loss that holds with probability 1 − δ, from a description length.

    Theorem 1, for a description fixed before the data are seen: `L + √((|d| + ln(2/δ)) / (2m))`.

    Theorem 2, with `num_weights`: `bits` is `kb + |d(g)|`, and k itself must be told, too:
    `L + √((kb + |d(g)| + ln(2n/δ)) / (2m))`.

    Lengths are in bits, and the logarithm of the confidence is natural. That is Theorem 7.7 of the
    textbook which the paper cites: a hypothesis of |d| bits has weight `2^−|d|`, whose natural
    logarithm is `|d| ln 2 ≤ |d|`. So both bounds hold as written, with a little to spare.

    The loss must lie in [0, 1], as the share of errors does. A bound of 1 or more says nothing.

    Args:
        train_loss: L, mean loss over the training samples.
        bits: length of the description.
        num_samples: m, training samples.
        delta: δ, probability that the bound fails.
        num_weights: n, for Theorem 2; `None` for Theorem 1.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> round(generalization_bound(0.1, bits=96, num_samples=5000), 6)
        0.199844

    Reference:
        Neyshabur, "Towards Learning Convolutions from Scratch", 2020, Theorems 1 and 2;
        Shalev-Shwartz and Ben-David, "Understanding Machine Learning", 2014, Theorem 7.7.
    """
    if not 0 <= train_loss <= 1:
        raise ValueError(f"`train_loss` must lie in [0, 1]. Received: train_loss={train_loss}")
    if not 0 <= bits < math.inf:
        raise ValueError(f"`bits` must be finite and not negative. Received: bits={bits}")
    if num_samples < 1:
        raise ValueError(f"`num_samples` must be positive. Received: num_samples={num_samples}")
    if not 0 < delta < 1:
        raise ValueError(f"`delta` must lie in (0, 1). Received: delta={delta}")
    if num_weights is not None and num_weights < 1:
        raise ValueError(f"`num_weights` must be positive. Received: num_weights={num_weights}")
    confidence = math.log(2 * (num_weights or 1) / delta)
    return train_loss + math.sqrt((bits + confidence) / (2 * num_samples))


@checked
def description_length(
    model: keras.Model,
    weight_sharing: WeightSharing = "layers",
    *,
    include: Include = "weights",
    bits_per_parameter: int | None = None,
) -> DescriptionLength:
    """Count what it takes to describe a model's weights.

    Every model is seen as a point in the space of fully connected ones. The kernel of a
    convolution (plain, grouped, depthwise or transposed), of a locally connected layer or of a
    dense layer stands for the dense matrix between its whole input and its whole output, and each
    of a separable convolution's two kernels for one of its own: n counts the matrices' entries,
    ‖w‖₀ those that are not zero. Each non-zero entry of a convolution's kernel
    fills as many of them as there are positions where it meets a real input. Entries that meet
    nothing but padding have no place in the matrix and are not described. All other variables
    (biases, BatchNorm's, kernels of other layers) stand for themselves.

    `weight_sharing` says what k counts:

    - `"layers"`: the stored entries that are used and not zero. A convolution's copies of one
      entry share it. For S-CONV's first layer, k is the number of kernel entries.
    - `"none"`: ‖w‖₀, every non-zero entry of the matrix has a parameter of its own.
    - `"values"`: distinct non-zero values, whoever holds them; equal numbers are one parameter
      even where no layer ties them. This is Theorem 2 to the letter.

    Args:
        model: a built functional or Sequential model.
        weight_sharing: `"layers"`, `"none"` or `"values"`.
        include: `"weights"` for all that a prediction needs, BatchNorm's moving statistics
            included; `"trainable"`; or `"kernels"`, as the paper's parameter counts.
        bits_per_parameter: b; by default each variable's dtype decides (32 for float32). Another
            number is right only for a model that is stored with so many bits.

    Returns:
        A `DescriptionLength`.

    Raises:
        ValueError: If an argument is out of its range, or a layer's input shape is not known or
            not its only one: the model is subclassed, the size is `None`, or a layer is called
            several times.

    Example:
        >>> conv = keras.layers.Conv2D(2, 3, use_bias=False)
        >>> found = description_length(keras.Sequential([keras.Input((5, 5, 1)), conv]))
        >>> found.num_weights, found.num_nonzeros, found.num_values, found.value_bits
        (450, 162, 18, 576)

    Reference:
        Neyshabur, "Towards Learning Convolutions from Scratch", 2020, section 3 and appendix B.
    """
    if weight_sharing not in get_args(WeightSharing):
        raise ValueError(
            f"`weight_sharing` must be one of {get_args(WeightSharing)}. "
            f"Received: weight_sharing={weight_sharing!r}"
        )
    if include not in get_args(Include):
        raise ValueError(
            f"`include` must be one of {get_args(Include)}. Received: include={include!r}"
        )
    if bits_per_parameter is not None and bits_per_parameter < 1:
        raise ValueError(f"`bits_per_parameter` must be positive. Received: {bits_per_parameter=}")
    layers: dict[str, LayerCounts] = {}
    values: dict[int, list[np.ndarray]] = {}
    parameter_bits = value_bits = 0
    for layer in _leaves(model):
        for variable in _variables(layer, include):
            found = entries(layer, variable)
            bits = bits_per_parameter or _bits(variable.dtype)
            distinct = found.distinct_values() if weight_sharing == "values" else None
            counts = _counts(found, weight_sharing, distinct)
            layers[layer.name] = layers.get(layer.name, LayerCounts()) + counts
            parameter_bits += counts.num_parameters * bits
            value_bits += counts.num_values * bits
            if distinct is not None:
                values.setdefault(bits, []).append(distinct)
    total = sum(layers.values(), LayerCounts())
    num_values = total.num_values
    if weight_sharing == "values":
        sizes = {bits: len(np.unique(np.concatenate(parts))) for bits, parts in values.items()}
        num_values, value_bits = sum(sizes.values()), sum(b * size for b, size in sizes.items())
    return DescriptionLength(
        layers=layers,
        num_parameters=total.num_parameters,
        num_weights=total.num_weights,
        num_nonzeros=total.num_nonzeros,
        num_values=num_values,
        parameter_bits=parameter_bits,
        value_bits=value_bits,
    )


def _counts(
    found: Entries, weight_sharing: WeightSharing, distinct: np.ndarray | None
) -> LayerCounts:
    return LayerCounts(
        num_parameters=found.num_parameters,
        num_weights=found.num_weights,
        num_nonzeros=found.num_nonzeros,
        num_values={
            "layers": found.num_values,
            "none": found.num_nonzeros,
            "values": 0 if distinct is None else len(distinct),
        }[weight_sharing],
    )


def _leaves(
    model: keras.Model, shared: frozenset[int] | None = None
) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of those inside it; `shared` are called several times."""
    if shared is None and is_functional(model):
        calls = Counter(id(call.operation) for call in read_graph(model).calls)
        shared = frozenset(operation for operation, count in calls.items() if count > 1)
    for layer in model.layers:
        if shared is not None and id(layer) in shared and layer.weights:
            raise ValueError(
                f"Layer {layer.name!r} is called several times in model {model.name!r}; the matrix "
                "it stands for is only known for layers that are called once."
            )
        if isinstance(layer, keras.Model):
            yield from _leaves(layer, shared)
        else:
            yield layer


def _variables(layer: keras.layers.Layer, include: Include) -> list[keras.Variable]:
    if include == "trainable":
        return list(layer.trainable_weights)
    # `weights` leaves out the state of seed generators and metrics.
    if include == "weights":
        return list(layer.weights)
    return [variable for variable in layer.weights if is_kernel(variable)]


def _bits(dtype: str) -> int:
    if dtype == "bool":
        return 1
    digits = re.search(r"\d+", dtype)
    if digits is None:
        raise ValueError(f"The dtype of a variable must name its bits. Received: dtype={dtype}")
    return int(digits.group())
