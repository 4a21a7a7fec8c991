"""How far a study of many runs has come, and how long the rest will take."""

from collections import defaultdict
from collections.abc import Callable, Mapping

from tfconvbias.terminal import duration


class Progress:
    """Counts runs, and estimates the time for the rest from that of the epochs before.

    Args:
        planned: Kind of run → the epochs of all its runs. A kind is what takes equally long per
            epoch, such as a row of a table.
        num_runs: How many runs there are.
        tell: What prints a line.
        at_once: How many runs are under way at a time.

    Example:
        >>> progress = Progress({"S-FC": 4}, num_runs=2, tell=print)
        >>> progress.done("S-FC", "first", epochs=2, seconds=30.0)
        [1/2] first; 30 s left
        >>> progress.done("S-FC", "second", epochs=2, seconds=30.0)
        [2/2] second
    """

    def __init__(
        self,
        planned: Mapping[str, int],
        num_runs: int,
        tell: Callable[[str], None],
        at_once: int = 1,
    ):
        self.at_once = at_once
        self.left = dict(planned)
        self.num_runs = num_runs
        self.num_done = 0
        self.tell = tell
        self._seconds: dict[str, float] = defaultdict(float)
        self._epochs: dict[str, int] = defaultdict(int)

    def done(self, kind: str, text: str, *, epochs: int, seconds: float) -> None:
        """Count a run that was trained now, and print a line."""
        self._seconds[kind] += seconds
        self._epochs[kind] += epochs
        self.skip(kind, epochs=epochs)
        left = self.seconds_left()
        self.tell(
            f"[{self.num_done}/{self.num_runs}] {text}" + (f"; {duration(left)} left" * (left > 0))
        )

    def skip(self, kind: str, *, epochs: int) -> None:
        """Count a run that was complete before."""
        self.num_done += 1
        self.left[kind] -= epochs

    def seconds_left(self) -> float:
        """Estimate of the time for the runs that are left.

        A kind of which nothing was trained yet is taken for the mean of the others.
        """
        trained = sum(self._epochs.values())
        mean = sum(self._seconds.values()) / trained if trained else 0.0
        left = sum(
            epochs * (self._seconds[kind] / self._epochs[kind] if self._epochs[kind] else mean)
            for kind, epochs in self.left.items()
        )
        return left / max(1, min(self.at_once, self.num_runs - self.num_done))
