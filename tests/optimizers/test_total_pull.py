"""λ and β from the total pull and the cutoff."""

import keras
import numpy as np
import pytest

from tfconvbias.optimizers import BetaLasso, beta_lasso_settings, total_learning_rate


@pytest.mark.parametrize("steps", [1, 7, 100, 101, 39_000])
def test_the_rates_of_a_cosine_add_up_to_half_of_steps_plus_one(steps):
    """Σ (1 + cos(π t / T)) / 2 over t = 0 … T − 1 is (T + 1) / 2."""
    schedule = keras.optimizers.schedules.CosineDecay(0.2, decay_steps=steps)
    assert total_learning_rate(schedule, steps) == pytest.approx(0.2 * (steps + 1) / 2, rel=1e-3)
    assert total_learning_rate(0.2, steps) == pytest.approx(0.2 * steps)


def test_weights_without_a_gradient_move_by_the_pull():
    steps = 20
    schedule = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=steps)
    found = beta_lasso_settings(pull=0.25, cutoff=0.02, learning_rate=schedule, steps=steps)
    assert found.beta * found.l1 == pytest.approx(0.02)
    kernel = keras.Variable(np.array([1.0, -1.0, 0.2, 0.26, 0.28], "float32"), name="kernel")
    optimizer = BetaLasso(schedule, l1=found.l1, beta=found.beta)
    for _ in range(steps):
        optimizer.apply([keras.ops.zeros(5)], [kernel])
    left = keras.ops.convert_to_numpy(kernel)
    # 0.26 ends at 0.01, below the cutoff of 0.02; 0.28 at 0.03, above it.
    np.testing.assert_allclose(left, [0.75, -0.75, 0.0, 0.0, 0.03], atol=1e-5)
    assert (left[2:4] == 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pull": 0.0}, "`pull`"),
        ({"pull": float("nan")}, "`pull`"),
        ({"cutoff": -0.1}, "`cutoff`"),
        ({"learning_rate": 0.0}, "add up"),
        ({"steps": 0}, "`steps`"),
    ],
    ids=str,
)
def test_bad_values_are_refused(changes, message):
    good = {"pull": 0.1, "cutoff": 0.0, "learning_rate": 0.1, "steps": 5}
    with pytest.raises(ValueError, match=message):
        beta_lasso_settings(**{**good, **changes})
