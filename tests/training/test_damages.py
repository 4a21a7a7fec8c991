"""Each file of a folder, damaged in each way: resumed work heals or names the file, and no more.

A traceback is as wrong as a wrong number. `environment.json` and pages are made again or say
nothing of a result; a study's parts and a search's trials are damaged like the files of a run.
"""

import collections
import shutil
from pathlib import Path

import keras
import pytest
from damages import DAMAGES, outcome

from tfconvbias import training, tuning
from tfconvbias.studies import edge_of_stability

pytestmark = pytest.mark.slow


def check_all(made: Path, foreign: Path, place: Path, go_on, files):
    """Damage each file of a folder in each way, and fail where the answer is no good one.

    Args:
        made: The folder as it was left; it is copied.
        foreign: One of other work, with files of the same names.
        place: Where the copies are put.
        go_on: Resumes the work in `place` and returns its numbers.
        files: Names of the files to damage.
    """

    def fresh():
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(made, place)

    fresh()
    expected = go_on()
    counts, wrong = collections.Counter(), []
    for name in files:
        for label, damage in DAMAGES.items():
            fresh()
            damage(place / name, foreign / name)
            found = outcome(place / name, go_on, expected)
            counts[found.split(":")[0]] += 1
            if found not in ("heals", "clear"):
                wrong.append(f"{name}, {label}: {found}")
    print(f"{made.name}: {dict(counts)}")
    assert not wrong, "\n".join(wrong)


class Killed(BaseException):
    pass


def numbers(result):
    model = keras.saving.load_model(result.folder.last_model)
    return (
        {name: value for name, value in result.row.items() if name != "seconds"},
        {name: v for name, v in result.history.items() if "seconds" not in name},
        [keras.ops.convert_to_numpy(weight).tobytes() for weight in model.weights],
    )


@pytest.fixture
def run_of(tiny_config, tiny_dataset, tmp_path):
    """Makes a run folder, finished or stopped after its second epoch."""

    def run(name, stopped=False, **changes):
        config = tiny_config.replace(run_dir=str(tmp_path / name), **changes)
        save = training.RunFolder.save_checkpoint

        def kill(folder, model, epoch, num_kept):
            save(folder, model, epoch, num_kept)
            if epoch == 2:
                raise Killed

        with pytest.MonkeyPatch.context() as patch:
            if stopped:
                patch.setattr(training.RunFolder, "save_checkpoint", kill)
                with pytest.raises(Killed):
                    training.run(config, tiny_dataset)
            else:
                training.run(config, tiny_dataset)
        return tmp_path / name

    return run


def test_a_finished_run(run_of, tiny_config, tiny_dataset, tmp_path, capsys):
    made, foreign = run_of("finished"), run_of("another", seed=1)
    place = tmp_path / "run"

    def go_on():
        done = training.run(tiny_config.replace(run_dir=str(place), resume=True), tiny_dataset)
        done.folder.load_model(done.folder.last_model)
        return numbers(done)

    check_all(
        made, foreign, place, go_on, ["config.json", "result.json", "history.csv", "last.keras"]
    )


def test_a_stopped_run(run_of, tiny_config, tiny_dataset, tmp_path):
    made, foreign = run_of("stopped", stopped=True), run_of("another", stopped=True, seed=1)
    place = tmp_path / "run"
    files = sorted(file.name for file in made.iterdir() if file.name != "lock")
    assert {"checkpoint-1.json", "checkpoint-2.weights.h5", "best.keras"} <= set(files)

    def go_on():
        return numbers(
            training.run(tiny_config.replace(run_dir=str(place), resume=True), tiny_dataset)
        )

    check_all(made, foreign, place, go_on, files)


def test_a_study_of_rows(tmp_path):
    tiny = edge_of_stability.StabilitySweep(
        experiments=("sizes",), seeds=1, steps=20, sweep_steps=20, warmup_steps=5,
        measure_every=10, sizes=(8, 16), num_test=20, dense_width=4, local_width=4, conv_width=4,
        verbose="silent",
    )  # fmt: skip
    for name, noise in (("sweep", 1.0), ("another", 0.5)):
        edge_of_stability.run_stability(tiny.replace(run_dir=str(tmp_path / name), noise=noise))
    made = tmp_path / "sweep"
    rows = sorted(file.name for file in (made / "rows").iterdir())
    for mine, theirs in zip(rows, sorted((tmp_path / "another" / "rows").iterdir()), strict=True):
        theirs.rename(theirs.with_name(mine))
    place = tmp_path / "place"

    def go_on():
        found = edge_of_stability.run_stability(tiny.replace(run_dir=str(place), resume=True))
        return {
            name: [{k: v for k, v in row.items() if "seconds" not in k} for row in of_name]
            for name, of_name in found.items()
        }

    check_all(made, tmp_path / "another", place, go_on, ["config.json", f"rows/{rows[0]}"])


def test_a_search(tmp_path, tiny_dataset):
    tiny = tuning.SearchConfig(
        run=training.RunConfig(
            base_channels=1, connectivity="dense", dataset="tiny", epochs=1, batch_size=32,
            tensorboard=False, verbose="silent",
        ),
        dropout_rates=(0.0,), momenta=(0.0, 0.9), weight_decays=(0.0,),
    )  # fmt: skip
    for name, seed in (("search", 0), ("another", 1)):
        tuning.search(tiny.replace(run_dir=str(tmp_path / name), seed=seed), tiny_dataset)
    place = tmp_path / "place"

    def go_on():
        found = tuning.search(tiny.replace(run_dir=str(place), resume=True), tiny_dataset)
        return found.rows

    files = [
        *("config.json", "trials/oracle.json", "trials/tuner0.json"),
        *(f"trials/trial_000{k}/trial.json" for k in (0, 1)),
        "results.csv",
    ]
    check_all(tmp_path / "search", tmp_path / "another", place, go_on, files)
