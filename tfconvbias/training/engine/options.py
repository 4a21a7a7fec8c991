"""How many runs are carried out at a time, and where."""

from dataclasses import dataclass

from tfconvbias.training.config import Config, option
from tfconvbias.training.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ManyRuns(Config):
    """The fields of every configuration that stands for many runs; none decides a result.

    Raises:
        ConfigError: If a value is out of its range, or both `jobs` and `ray` are given.
    """

    section = "many runs"

    jobs: int = option(
        1,
        "runs at a time, each in a process of its own that has its share of the CPU threads and, "
        "where there are GPUs, one of them; 1: one run after the other in this process",
        decides=False,
    )
    ray: str | None = option(
        None,
        "carry the runs out on a Ray cluster: its address (HOST:PORT, auto), or local to start one "
        "on this machine; run folders must lie on storage that all its machines share",
        decides=False,
    )
    cpus_per_run: int = option(1, "CPUs that Ray reserves for a run", decides=False)
    gpus_per_run: float | None = option(
        None,
        "GPUs that Ray reserves for a run, or a share of one; none: 1 on a cluster with GPUs, else "
        "0",
        decides=False,
    )
    retries: int = option(
        2,
        "how often a run is continued whose process was killed or ran out of memory",
        decides=False,
    )

    def __post_init__(self):
        super().__post_init__()
        self._num_runs("jobs")
        self._positive("cpus_per_run")
        self._at_least_zero("retries")
        if self.gpus_per_run is not None:
            self._at_least_zero("gpus_per_run")
        if self.ray is not None and self.jobs > 1:
            raise ConfigError(
                f"Choose jobs or ray, not both. Received: jobs={self.jobs}, ray={self.ray!r}"
            )

    @property
    def is_in_process(self) -> bool:
        """Whether the runs are carried out by this very process."""
        return self.jobs == 1 and self.ray is None
