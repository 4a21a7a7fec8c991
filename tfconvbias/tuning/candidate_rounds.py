"""One round of a policy search: candidates proposed, judged and kept on disk one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tfconvbias.training import RunFolderError, read_json, write_json
from tfconvbias.tuning.proposals import Policy, Proposals

Candidate = dict[str, Any]
"""`"policy"`, and its `"reward"`."""


def judged_before(file: Path, num_candidates: int) -> list[Candidate]:
    """The candidates of a round that an earlier process has judged.

    Raises:
        RunFolderError: If the file is damaged.
    """
    if not file.exists():
        return []
    found = read_json(file)
    if not (
        isinstance(found, list)
        and len(found) <= num_candidates
        and all(isinstance(entry, dict) and entry.keys() == {"reward", "policy"} for entry in found)
        and all(isinstance(entry["reward"], float) for entry in found)
    ):
        raise RunFolderError(
            f"{file} does not hold the candidates of this search. Remove it, and this round is "
            "run again."
        )
    return found


def run_round(
    file: Path,
    proposals: Proposals,
    num_candidates: int,
    reward_of: Callable[[int, Policy], float],
    judged: Callable[[float], None],
) -> list[Candidate]:
    """Judge the candidates that the file does not hold yet; all of the round's candidates.

    Args:
        file: Where they are kept; written after every candidate.
        proposals: What proposes them.
        num_candidates: How many the round has.
        reward_of: The reward of the candidate of a number.
        judged: Told each new reward.
    """
    candidates = judged_before(file, num_candidates)
    for found in candidates:
        try:
            proposals.recall(found["policy"], found["reward"])
        except (TypeError, ValueError) as error:
            raise RunFolderError(
                f"{file} is damaged ({error}). Remove it, and this round is run again."
            ) from error
    for number in range(len(candidates), num_candidates):
        policy = proposals.propose()
        reward = reward_of(number, policy)
        proposals.tell(reward)
        candidates.append({"reward": reward, "policy": policy})
        write_json(file, candidates)
        judged(reward)
    return candidates


def best(candidates: Sequence[Candidate], num_kept: int) -> list[Candidate]:
    """The candidates of the highest rewards, of equal ones those that were judged first."""
    return sorted(candidates, key=lambda found: -found["reward"])[:num_kept]


def without_repeats(policy: Policy) -> Policy:
    """A policy's sub-policies, those left out that name the operations of an earlier one."""
    kept: dict[tuple[str, ...], list] = {}
    for part in policy:
        kept.setdefault(tuple(name for name, _, _ in part), part)
    return list(kept.values())
