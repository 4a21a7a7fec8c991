"""β-LASSO's λ and β from what a run does to a weight in all."""

from typing import Any, NamedTuple

from keras import ops

from tfconvbias.arguments import PositiveInt, checked

_MOST_POINTS = 100


class BetaLassoSettings(NamedTuple):
    """λ and β, as `BetaLasso` takes them."""

    l1: float
    beta: float


@checked
def total_learning_rate(learning_rate: Any, steps: PositiveInt) -> float:
    """Sum of the learning rate over a run's steps, Σ η.

    Args:
        learning_rate: A number, or a `keras.optimizers.schedules.LearningRateSchedule`. Of a
            schedule 100 steps at equal distances are read, or all where there are fewer.
        steps: Steps of the run.

    Raises:
        ValueError: If there are no steps.

    Example:
        >>> total_learning_rate(0.1, steps=50)
        5.0
    """
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1. Received: steps={steps}")
    if not callable(learning_rate):
        return float(learning_rate) * steps
    points = min(steps, _MOST_POINTS)
    # The middle of each of as many equal parts of the steps 0 … steps − 1.
    read = [(steps * (2 * point + 1) / points - 1) / 2 for point in range(points)]
    rates = [float(ops.convert_to_numpy(learning_rate(step))) for step in read]
    return steps * sum(rates) / points


@checked
def beta_lasso_settings(
    pull: float, cutoff: float, learning_rate: Any, steps: PositiveInt
) -> BetaLassoSettings:
    """λ and β of a run of so many steps from its total pull and its cutoff.

    A step of β-LASSO pulls a weight towards zero by η λ and cuts it off below β λ. Over a run the
    pulls add up to λ Σ η: this is how far a weight moves towards zero where the loss does not
    resist. With the same λ a run of ten times the steps pulls ten times as far; with the same
    total pull and the same cutoff β λ runs of different lengths can be compared. So

        λ = pull / Σ η,    β = cutoff / λ.

    There is no default, because the pull that is best depends on data, network and length: S-FC on
    easy artificial images of 10 classes (α = 4, 12 epochs) reached 99.9 % with a pull of 0.2 and
    97.4 % with 0.39; on 10,000 images of CIFAR-10 (α = 8, 30 epochs) a pull of 0.1 gave 50.1 % and
    0.39 gave 42.5 %. A public reproduction of the paper had 0.39 at α = 150 and 4000 epochs. As a
    cutoff a tenth to a fifth of the standard deviation of the layer's initial weights is where to
    start a search.

    Args:
        pull: λ Σ η, in units of a weight.
        cutoff: β λ, the size below which a weight becomes zero.
        learning_rate: A number, or a `keras.optimizers.schedules.LearningRateSchedule`.
        steps: Steps of the run.

    Raises:
        ValueError: If `pull` is not positive, `cutoff` is negative, or Σ η is 0.

    Example:
        >>> beta_lasso_settings(pull=0.5, cutoff=0.25, learning_rate=0.125, steps=32)
        BetaLassoSettings(l1=0.125, beta=2.0)
    """
    if not 0 < pull < float("inf"):
        raise ValueError(f"`pull` must be a positive number. Received: pull={pull}")
    if not 0 <= cutoff < float("inf"):
        raise ValueError(f"`cutoff` must be a number of at least 0. Received: cutoff={cutoff}")
    total = total_learning_rate(learning_rate, steps)
    if not total > 0:
        raise ValueError(
            f"The learning rates must add up to more than 0. Received: learning_rate={total}"
        )
    l1 = pull / total
    return BetaLassoSettings(l1, cutoff / l1)
