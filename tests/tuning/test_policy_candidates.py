import json
import logging
import sys

import pytest

from tfconvbias.optional import MissingPackageError
from tfconvbias.training import RunFolderError
from tfconvbias.tuning.candidate_rounds import best, run_round, without_repeats
from tfconvbias.tuning.proposals import Proposals

OPERATIONS = ("Rotate", "Invert", "Color", "Cutout", "Equalize")


def proposals(*seed):
    return Proposals(OPERATIONS, num_sub_policies=2, num_steps=2, seed=seed)


def rotations(policy):
    return sum(name == "Rotate" for part in policy for name, _, _ in part)


def rewarded(some, reward_of, num):
    policies = []
    for _ in range(num):
        policies.append(some.propose())
        some.tell(reward_of(policies[-1]))
    return policies


def test_candidates_are_policies_drawn_over_the_whole_range():
    policies = rewarded(proposals(0), lambda policy: 0.5, 20)
    assert all(len(policy) == 2 and len(part) == 2 for policy in policies for part in policy)
    steps = [step for policy in policies for part in policy for step in part]
    assert {name for name, _, _ in steps} == set(OPERATIONS)
    for column in (1, 2):
        numbers = [step[column] for step in steps]
        assert 0 <= min(numbers) < 0.1
        assert 0.9 < max(numbers) <= 1


def test_later_candidates_are_like_those_of_high_reward():
    policies = rewarded(proposals(1), rotations, 45)
    first, last = (
        sum(map(rotations, part)) / len(part) for part in (policies[:20], policies[-15:])
    )
    assert 0.5 < first < 1.2  # a fifth of four
    assert last > 2 * first


def test_another_process_goes_on_with_the_same_candidates():
    whole = rewarded(proposals(2, 0), rotations, 26)
    second = proposals(2, 0)
    for policy in json.loads(json.dumps(whole[:23])):
        second.recall(policy, rotations(policy))
    assert rewarded(second, rotations, 3) == whole[23:]
    assert rewarded(proposals(2, 1), rotations, 1) != whole[:1]


def test_nothing_is_printed_and_a_missing_package_is_named(capfd, monkeypatch):
    level = logging.getLogger("optuna").level
    rewarded(proposals(3), rotations, 2)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("optuna").level == level
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingPackageError, match=r"extra 'policies'.*requirements policies"):
        proposals(3)


def test_a_round_that_was_killed_judges_no_candidate_again(tmp_path):
    def run(name, judged, until=None):
        def reward_of(number, policy):
            if number == until:
                raise KeyboardInterrupt
            judged.append(number)
            return float(rotations(policy))

        shown = []
        found = run_round(tmp_path / name, proposals(4), 26, reward_of, shown.append)
        assert len(shown) == len(judged)
        return found

    whole, first, second = [], [], []
    run("whole.json", whole)
    assert whole == list(range(26))
    with pytest.raises(KeyboardInterrupt):
        run("parts.json", first, until=22)
    assert [len(json.loads((tmp_path / "parts.json").read_text())), len(first)] == [22, 22]
    candidates = run("parts.json", second)
    assert second == [22, 23, 24, 25]
    assert (tmp_path / "parts.json").read_text() == (tmp_path / "whole.json").read_text()
    assert [found["reward"] for found in candidates] == [
        rotations(found["policy"]) for found in candidates
    ]
    third = []
    assert run("parts.json", third) == candidates
    assert third == []


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "{}",
        '[{"reward": 1.0}]',
        '[{"reward": 1.0, "policy": [[["Rotate", 0.5, 0.5]]]}]',
        '[{"reward": 1.0, "policy": [[["Wobble", 0, 0], ["Wobble", 0, 0]]]}]',
        '[{"reward": "much", "policy": []}]',
        json.dumps([{"reward": 1.0, "policy": []}] * 3),
    ],
)
def test_damaged_candidates_are_a_message(content, tmp_path):
    (tmp_path / "round.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"round\.json"):
        run_round(tmp_path / "round.json", proposals(5), 2, lambda *args: 0.0, lambda reward: None)


def test_the_best_are_kept_and_of_equal_ones_the_first():
    candidates = [{"reward": r, "policy": n} for n, r in enumerate((0.1, 0.7, 0.9, 0.7, 0.7, 0.2))]
    assert [found["policy"] for found in best(candidates, 3)] == [2, 1, 3]


def test_sub_policies_of_the_same_operations_in_the_same_order_are_repetitions():
    a, b = ["Invert", 0.1, 0.2], ["Color", 0.3, 0.4]
    other = [["Invert", 0.9, 0.9], ["Color", 0.8, 0.8]]
    assert without_repeats([[a, b], [b, a], other, [b, b]]) == [[a, b], [b, a], [b, b]]
