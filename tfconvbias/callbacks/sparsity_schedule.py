"""How much of a model is zero after how many steps."""

from dataclasses import dataclass

from tfconvbias.arguments import checked


@checked
@dataclass(frozen=True)
class SparsitySchedule:
    r"""A share of zeros that grows from one step to another, fast at first.

    ```
    s_t = s_f + (s_i − s_f) (1 − (t − t_0) / (t_1 − t_0))^p      for t_0 ≤ t ≤ t_1
    ```

    Before t_0 nothing is pruned, after t_1 the share stays at s_f.

    Args:
        final_sparsity: s_f, the share of zeros in the end, in [0, 1).
        begin_step: t_0, counted in the optimizer's iterations.
        end_step: t_1; equal to `begin_step`, the final share is reached at once.
        initial_sparsity: s_i, the share at the first step, at most the final one.
        power: p; 3 is the cubic schedule, 1 a straight line.
        frequency: Number of steps between two updates of what is zero.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> schedule = SparsitySchedule(0.8, begin_step=0, end_step=100)
        >>> [round(schedule(step), 3) for step in (0, 50, 100, 200)]
        [0.0, 0.7, 0.8, 0.8]

    Reference:
        Zhu and Gupta, "To Prune, or Not to Prune", 2017, eq. 1.
    """

    final_sparsity: float
    begin_step: int
    end_step: int
    initial_sparsity: float = 0.0
    power: float = 3.0
    frequency: int = 100

    def __post_init__(self):
        if not 0 <= self.initial_sparsity <= self.final_sparsity < 1:
            raise ValueError(
                "`initial_sparsity` and `final_sparsity` must be in [0, 1), the first at most the "
                f"second. Received: initial_sparsity={self.initial_sparsity}, "
                f"final_sparsity={self.final_sparsity}"
            )
        if not 0 <= self.begin_step <= self.end_step:
            raise ValueError(
                "`begin_step` must be >= 0 and at most `end_step`. "
                f"Received: begin_step={self.begin_step}, end_step={self.end_step}"
            )
        if self.power <= 0 or self.frequency < 1:
            raise ValueError(
                "`power` must be positive and `frequency` at least 1. "
                f"Received: power={self.power}, frequency={self.frequency}"
            )

    def __call__(self, step: int) -> float:
        """The share of zeros after a number of steps."""
        if step < self.begin_step:
            return 0.0
        if step >= self.end_step:
            return self.final_sparsity
        left = 1 - (step - self.begin_step) / (self.end_step - self.begin_step)
        return (
            self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * left**self.power
        )

    def is_due(self, step: int, last: int) -> bool:
        """Whether what is zero is to be updated.

        Args:
            step: Number of steps so far.
            last: Number of steps at the last update; negative before the first.
        """
        if step < self.begin_step or (last >= self.end_step and last >= 0):
            return False
        # The last one is never missed, however many steps run at a time.
        return last < 0 or step - last >= self.frequency or step >= self.end_step
