"""Recipes killed with SIGKILL and resumed end with the numbers of an uninterrupted run.

Each recipe is killed four times at a write (while a file is half written, before it is synced,
before and after it is renamed) and twice after a random time; every other time the resumed command
is killed, too. Which writes and times is drawn with a fixed seed. On one machine there is no
tolerance: tables, histories, result rows and the weights of models are compared bit by bit, times
are left out. `make test-slow` runs it, in about an hour on two cores; `pytest -s` shows each kill.
"""

import random

import pytest
from kills import Launcher, differences, numbers_of

pytestmark = pytest.mark.slow

_TINY = "--demo --num-train 60 --verbose silent"
_TESTED = f"{_TINY} --num-test 20"
COMMANDS = {
    "train": f"{_TESTED} --base-channels 1 --epochs 3 --batch-size 16 --checkpoint-every 1 "
    "--no-tensorboard",
    "tune": f"{_TINY} --base-channels 1 --epochs 2 --batch-size 16 --l1-values 1e-4 "
    "--l1-conv-values 1e-4 2e-4",
    "edge_of_stability": "--demo --experiments sizes --seeds 1 --steps 40 --sweep-steps 40 "
    "--warmup-steps 10 --measure-every 20 --sizes 16 32 --num-test 50 --dense-width 8 "
    "--local-width 8 --conv-width 8 --verbose silent",
    "compare_s_family": f"{_TESTED} --base-channels 1 --epochs 1 --batch-size 16 --no-tensorboard",
    "efcn_way_back": f"{_TESTED} --filters 1 --num-validation 20 --switch-time 1 "
    "--embedded-epochs 1 --fine-tune-epochs 1 --batch-size 20 --checkpoint-every 1",
    "structured_sparsity": f"{_TESTED} --base cifar8 --width 0.25 --alphas 0.3 --epochs 1 "
    "--sparse-epochs 1 --fine-tune-epochs 1 --batch-size 20 --uniform-widths 0.5 "
    "--random-widths 0 --latency-batch 1",
    "protocol": f"{_TESTED} --base-channels 1 --batch-size 16 --epochs-list 1 2 --momenta 0 0.9 "
    "--pulls 0.1 --cutoffs 0.1 0.2 --seeds 1 --rows S-FC",
    "tune_sparsity": f"{_TINY} --base cifar8 --width 0.25 --alphas 0.3 0.5 --epochs 1 "
    "--sparse-epochs 1 --fine-tune-epochs 1 --batch-size 20",
    "structured_sparsity_baselines": f"{_TESTED} --width 0.25 --methods uniform proximal "
    "--seeds 0 --epochs 1 --sparse-epochs 1 --fine-tune-epochs 1 --batch-size 20",
    "efcn_switch_time": f"{_TESTED} --filters 1 --epochs 2 --embedded-epochs 1 "
    "--switch-times 0 1 --batch-size 20 --curvature-samples 10 --num-points 3 --string-epochs 1 "
    "--string-samples 10 --checkpoint-every 1",
}
MOMENTS = ("half of", "sync", "rename to", "renamed", "time", "time")


@pytest.fixture(scope="module")
def launcher():
    with Launcher() as found:
        yield found


@pytest.mark.parametrize("recipe", COMMANDS)
def test_killed_and_resumed_equals_uninterrupted(recipe, launcher, tmp_path):
    argv = COMMANDS[recipe].split()
    whole = tmp_path / "whole"
    whole.mkdir()
    uninterrupted = launcher.run(recipe, argv, whole)
    assert uninterrupted.status == 0, uninterrupted.output
    expected = numbers_of(whole / "work")
    assert any(name.endswith((".csv", "result.json")) or "rows/" in name for name in expected)

    drawn = random.Random(recipe)
    wrong = []
    for number, moment in enumerate(MOMENTS):
        folder = tmp_path / f"killed-{number}"
        folder.mkdir()
        how = _drawn_kill(drawn, moment, uninterrupted)
        killed = [launcher.run(recipe, argv, folder, **how)]
        if number % 2:
            again = {"kill_at": drawn.randrange(max(1, len(uninterrupted.points) // 4))}
            killed.append(launcher.run(recipe, [*argv, "--resume"], folder, **again))
        resumed = launcher.run(recipe, [*argv, "--resume"], folder)
        faults = differences(expected, numbers_of(folder / "work"))
        told = "; then ".join(
            f"{end.points[-1] if end.points else 'before any write'} (status {end.status})"
            for end in killed
        )
        outcome = "same" if resumed.status == 0 and not faults else "WRONG"
        print(f"{recipe}: {moment}: killed at {told}: {outcome}", flush=True)
        if outcome != "same":
            wrong.append(f"{told}: status {resumed.status}, {faults}\n{resumed.output[-2000:]}")
            print(wrong[-1], flush=True)
    assert not wrong, "\n".join(wrong)


def _drawn_kill(drawn, moment, uninterrupted):
    if moment == "time":
        return {"kill_after": uninterrupted.seconds * drawn.uniform(0.1, 0.9)}
    points = [k for k, name in enumerate(uninterrupted.points) if name.startswith(moment)]
    return {"kill_at": drawn.choice(points)}
