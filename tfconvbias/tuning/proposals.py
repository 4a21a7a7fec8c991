"""Candidate policies from a tree-structured Parzen estimator, which learns from their rewards."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfconvbias.optional import require

Policy = list[list[list[Any]]]
"""Sub-policies, each a list of `[operation, probability, level]`."""

_NUM_RANDOM = 20  # candidates before there is something to learn from, as in HyperOpt


class Proposals:
    """Proposes policies; the more rewards it is told, the more they are like those of high reward.

    The estimator is Optuna's. As in HyperOpt, which the authors of Fast AutoAugment used, each of
    the numbers of a policy is drawn by itself, and the first 20 policies are drawn at random.

    A proposal depends on the seed and on the policies and rewards before it alone: after the same
    `recall`s another process goes on as this one.

    Args:
        operations: The names of the operations.
        num_sub_policies: Sub-policies of a policy.
        num_steps: Operations of a sub-policy.
        seed: Numbers that make the seed.

    Raises:
        MissingPackageError: If Optuna is not installed.
    """

    def __init__(
        self,
        operations: Sequence[str],
        num_sub_policies: int,
        num_steps: int,
        seed: tuple[int, ...],
    ):
        self._optuna: Any = require("optuna", "policies", "A search for a policy")
        self._seed = seed
        self._num_told = 0
        uniform = self._optuna.distributions.FloatDistribution(0.0, 1.0)
        one_of = self._optuna.distributions.CategoricalDistribution(list(operations))
        self._places = [
            [f"{part}_{step}" for step in range(num_steps)] for part in range(num_sub_policies)
        ]
        self._space = {
            f"{name}_{place}": kind
            for part in self._places
            for place in part
            for name, kind in (("operation", one_of), ("probability", uniform), ("level", uniform))
        }
        # Optuna would print a line about every study.
        logger = logging.getLogger("optuna")
        level = logger.level
        logger.setLevel(logging.WARNING)
        try:
            self._study = self._optuna.create_study(direction="maximize")
        finally:
            logger.setLevel(level)

    def propose(self) -> Policy:
        """The next candidate. Its reward is told before the next one is asked for."""
        seed = np.random.SeedSequence((*self._seed, self._num_told)).generate_state(1)
        self._study.sampler = self._optuna.samplers.TPESampler(
            n_startup_trials=_NUM_RANDOM, multivariate=False, seed=int(seed[0])
        )
        self._asked = self._study.ask(self._space)
        drawn = self._asked.params
        return [
            [
                [drawn[f"{name}_{place}"] for name in ("operation", "probability", "level")]
                for place in part
            ]
            for part in self._places
        ]

    def tell(self, reward: float) -> None:
        """The reward of the policy that was proposed last."""
        self._study.tell(self._asked, reward)
        self._num_told += 1

    def recall(self, policy: Policy, reward: float) -> None:
        """A policy that an earlier process was proposed, and its reward.

        Raises:
            ValueError: If the policy is not one that may be proposed.
        """
        values = {
            f"{name}_{place}": value
            for places, part in zip(self._places, policy, strict=True)
            for place, step in zip(places, part, strict=True)
            for name, value in zip(("operation", "probability", "level"), step, strict=True)
        }
        self._study.add_trial(
            self._optuna.trial.create_trial(params=values, distributions=self._space, value=reward)
        )
        self._num_told += 1
