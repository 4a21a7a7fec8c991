"""Description length and generalization bound over training."""

import keras

from tfconvbias.analysis import description_length, generalization_bound
from tfconvbias.analysis.description_length import Include, WeightSharing
from tfconvbias.arguments import OpenShare, PositiveInt, checked


@checked
class GeneralizationBound(keras.callbacks.Callback):
    """Add description lengths and, where the accuracy is known, both bounds to every epoch's logs.

    - `description/nonzeros`, `description/values`: ‖w‖₀ and k;
    - `description/parameter_bits`: bits of all stored numbers;
    - `description/bits`: bits of the sparse description;
    - `description/bound`: Theorem 2's bound on the share of errors, from the training accuracy;
    - `description/parameter_bound`: Theorem 1's bound, from all stored numbers.

    The logs hold the mean training accuracy of the epoch, measured while the weights changed, with
    dropout and augmentation active. The bounds are therefore those of the epoch, not of its last
    weights. For these, evaluate the model on the training data and call
    `analysis.DescriptionLength.bound`. Put the callback before callbacks that write the logs.

    Args:
        num_samples: m, the number of training samples.
        delta: δ, the probability that a bound fails.
        weight_sharing: What counts as one parameter: `"layers"`, an entry of a stored kernel,
            which all positions of a convolution share; `"none"`, every non-zero entry of the
            equivalent dense matrices; `"values"`, a distinct non-zero value.
        include: Which variables are described: `"weights"`, `"trainable"` or `"kernels"`.
        bits_per_parameter: Bits of one stored number. Defaults to those of its dtype.
        accuracy: Name of the training accuracy in the logs.

    Example:
        >>> GeneralizationBound(num_samples=50_000, include="kernels").num_samples
        50000
    """

    def __init__(
        self,
        num_samples: PositiveInt,
        delta: OpenShare = 0.05,
        weight_sharing: WeightSharing = "layers",
        include: Include = "weights",
        bits_per_parameter: int | None = None,
        accuracy: str = "accuracy",
    ):
        super().__init__()
        self.num_samples = num_samples
        self.delta = delta
        self.weight_sharing = weight_sharing
        self.include = include
        self.bits_per_parameter = bits_per_parameter
        self.accuracy = accuracy

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Describe the model after the epoch's last step."""
        if logs is None:
            return
        found = description_length(
            self.model,
            self.weight_sharing,
            include=self.include,
            bits_per_parameter=self.bits_per_parameter,
        )
        logs["description/nonzeros"] = found.num_nonzeros
        logs["description/values"] = found.num_values
        logs["description/parameter_bits"] = found.parameter_bits
        logs["description/bits"] = found.bits
        if self.accuracy in logs:
            error = 1 - logs[self.accuracy]
            logs["description/bound"] = found.bound(error, self.num_samples, self.delta)
            logs["description/parameter_bound"] = generalization_bound(
                error, found.parameter_bits, self.num_samples, self.delta
            )
