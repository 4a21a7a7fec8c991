"""Which networks judge candidate policies, and how many candidates there are."""

from dataclasses import dataclass

from tfconvbias.training import Config, ConfigError, RunConfig, option


@dataclass(frozen=True)
class AugmentationSearchConfig(Config):
    """The networks that judge candidates, and the search for a policy.

    The defaults of the search are the paper's; with them the policy has 500 sub-policies, less
    those that are left out as repetitions.

    Args:
        run: The network that is trained on each fold, without the policy that is searched. Its
            `run_dir` is the search's folder, which keeps the networks, the candidates and the
            policy, and `resume` continues the search.

    Raises:
        ConfigError: If a value is out of its range.
    """

    run: RunConfig = RunConfig()

    num_folds: int = option(5, "networks, each trained on all folds but one and judging on it")
    num_rounds: int = option(2, "searches on each fold, independent of each other")
    num_candidates: int = option(200, "candidate policies in a round")
    num_kept: int = option(10, "best candidates of a round, whose sub-policies are kept")
    num_sub_policies: int = option(5, "sub-policies of a candidate")
    num_steps: int = option(2, "operations of a sub-policy")
    num_draws: int = option(5, "augmented copies of an image, of which the best counts")
    max_judged: int = option(5000, "most images of a fold to judge on")

    def __post_init__(self):
        super().__post_init__()
        self._positive("num_rounds", "num_candidates", "num_kept", "num_sub_policies")
        self._positive("num_steps", "num_draws", "max_judged")
        if self.num_folds < 2:
            raise ConfigError(f"num_folds must be at least 2. Received: {self.num_folds=}")
        if self.num_kept > self.num_candidates:
            raise ConfigError(
                f"num_kept must not exceed num_candidates={self.num_candidates}. "
                f"Received: num_kept={self.num_kept}"
            )
