"""What a policy search shows: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import time
from collections.abc import Iterator, Sequence

from tfconvbias.terminal import bars, duration
from tfconvbias.training import Execution

_LINES = 10


class SearchProgress:
    """Counts judged candidates, and estimates the time for the rest of the search.

    Args:
        execution: Says how progress is shown.
        num_candidates: Candidates of a round.
        num_left: Candidates that the search has still to judge.
        num_networks: Networks that the search has still to train.
    """

    def __init__(self, execution: Execution, num_candidates: int, num_left: int, num_networks: int):
        self.execution = execution
        self.num_candidates = num_candidates
        self.num_left = num_left
        self.num_networks = num_networks
        self._num_judged = 0
        self._seconds = 0.0
        self._trainings: list[float] = []

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Measure a training meanwhile."""
        start = time.perf_counter()
        yield
        self._trainings.append(time.perf_counter() - start)
        self.num_networks -= 1

    @contextlib.contextmanager
    def round(self, name: str, before: Sequence[float]) -> Iterator[None]:
        """Show a round meanwhile, of which an earlier process has found some rewards."""
        self._name, self._done, self._best = name, len(before), max(before, default=0.0)
        self._start = time.perf_counter()
        show = self.execution.shown_as == "bar"
        with bars.open(name, self.num_candidates, done=self._done, show=show):
            yield

    def judged(self, reward: float) -> None:
        """Count a candidate."""
        now = time.perf_counter()
        self._seconds += now - self._start
        self._start = now
        self._num_judged += 1
        self.num_left -= 1
        self._done += 1
        self._best = max(self._best, reward)
        text = f"best {100 * self._best:.2f} %"
        if self.execution.shown_as == "bar":
            bars.advance(1, text)
        elif self._done * _LINES // self.num_candidates > (
            (self._done - 1) * _LINES // self.num_candidates
        ):
            left = self.seconds_left()
            self.execution.tell(
                f"{self._name}: {self._done}/{self.num_candidates} candidates, {text}"
                + (f"; {duration(left)} left" if self.num_left else "")
            )

    def seconds_left(self) -> float:
        """Estimate of the time for the candidates and the trainings that are left."""
        mean = sum(self._trainings) / len(self._trainings) if self._trainings else 0.0
        return self._seconds / self._num_judged * self.num_left + mean * self.num_networks
