import dataclasses
import shutil

import pytest
from hostile import PRINTABLE, check_harmless

from tfconvbias import training
from tfconvbias.studies.edge_of_stability import (
    StabilitySweep,
    check_stability,
    report_stability,
    run_stability,
    sweep,
)
from tfconvbias.studies.edge_of_stability.report import show
from tfconvbias.studies.edge_of_stability.sweep import EXPERIMENTS

SWEEP = StabilitySweep(
    experiments=("architectures", "patch_sizes"), seeds=1, num_train=16, steps=100,
    learning_rate=0.1, sweep_steps=100, warmup_steps=10, patch_sizes=(4, 20),
)  # fmt: skip


@pytest.fixture
def trained(monkeypatch):
    """Names of the runs that were trained, by a stand-in that takes no time."""
    names = []

    def train(run):
        names.append(run.name)
        return {
            "config": run.identity(),
            "train_error": 0.5,
            "gap": run.num_train / 7,
            "relative_sharpness": 1.0,
            "seconds": 0.1,
        }

    monkeypatch.setattr(sweep, "stability_row", train)
    return names


def test_hostile_names_are_shown_and_nothing_more(tmp_path):
    config = dataclasses.replace(SWEEP, run_dir=str(tmp_path))
    show(PRINTABLE, config, {PRINTABLE: [{"a": PRINTABLE}]}, {}, [PRINTABLE], [PRINTABLE])
    check_harmless(tmp_path / "report.html", shows=PRINTABLE)


def test_the_sweep_trains_reports_and_continues(tmp_path, capsys):
    config = dataclasses.replace(SWEEP, run_dir=str(tmp_path / "run"))
    report_stability(config)
    out = capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 5
    assert {f.name for f in (tmp_path / "run" / "figures").iterdir()} == {
        f"{name}.{suffix}"
        for name in (
            "architectures",
            "architectures-gaps",
            "patch-sizes",
            "patch-sizes-gaps",
            "units",
        )
        for suffix in ("png", "pdf", "svg")
    }
    resumed = dataclasses.replace(config, resume=True)
    rows = run_stability(resumed)
    assert [len(found) for found in rows.values()] == [3, 2]
    checks = check_stability(rows)
    # One path norm, six of architectures; of patch sizes a correlation and m = 20.
    assert len(checks) == 9
    for check in checks:
        (line,) = (line for line in out.splitlines() if line.startswith(f"| {check.name} "))
        assert line.rstrip(" |").endswith("pass" if check.passed else "FAIL")
        assert f"<td>{check.name}</td>" in page
    (dense,) = (row for row in rows["architectures"] if row["config"]["connectivity"] == "dense")
    gap = f"{dense['gap']:.3f} ({dense['gap']:.3f} – {dense['gap']:.3f})"
    assert f"<td>{gap}</td>" in page
    assert gap in out
    assert dense["environment"]["hardware"] in page
    assert "<dt>learning rate</dt><dd>0.1</dd>" in page


def test_a_stopped_sweep_continues_with_resume_in_a_moved_folder(tmp_path, trained, monkeypatch):
    config = dataclasses.replace(SWEEP, run_dir=str(tmp_path / "run"), verbose="silent")
    # Both experiments need the convolutional network with patches of 4.
    planned = list(dict.fromkeys(run.name for runs in config.runs().values() for run in runs))
    assert len(planned) == 4
    train = sweep.stability_row

    def killed(run):
        if len(trained) == 2:
            raise InterruptedError
        return train(run)

    monkeypatch.setattr(sweep, "stability_row", killed)
    with pytest.raises(InterruptedError):
        run_stability(config)
    monkeypatch.setattr(sweep, "stability_row", train)
    with pytest.raises(training.RunFolderError, match=r"already holds this sweep.*--resume"):
        run_stability(config)
    moved = dataclasses.replace(config, run_dir=str(tmp_path / "moved"), resume=True)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    rows = run_stability(moved)
    # None twice, none left out.
    assert trained == planned
    assert [row["gap"] for found in rows.values() for row in found] == [16 / 7] * 5


def test_selected_runs_can_be_added_and_shared_settings_cannot_change(tmp_path, trained):
    config = dataclasses.replace(SWEEP, run_dir=str(tmp_path), verbose="silent")
    run_stability(config)
    more = config.replace(
        resume=True, experiments=("architectures", "sizes"), seeds=2, sizes=(16, 32)
    )
    run_stability(more)
    # New are the architectures with seed 1, and all networks of 32 points with both seeds.
    assert len(trained) == len(set(trained)) == 4 + 3 + 6
    with pytest.raises(
        training.RunFolderError, match=r"\(conv_width: 128 there, 64 asked for, steps: 100 there"
    ):
        run_stability(more.replace(conv_width=64, steps=200))
    assert len(trained) == 13


def test_max_minutes_end_between_runs(tmp_path, trained):
    config = dataclasses.replace(SWEEP, run_dir=str(tmp_path), verbose="silent")
    with pytest.raises(training.RunPausedError, match=r"dense-k256.*max_minutes=1e-09 are over"):
        run_stability(config.replace(max_minutes=1e-9))
    run_stability(config.replace(resume=True))
    assert len(trained) == 4
    # What is on disk is read at any time.
    run_stability(config.replace(resume=True, max_minutes=1e-9))


def test_a_folder_that_cannot_be_used_is_found_before_the_first_run(tmp_path, trained):
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.raises(training.RunFolderError, match="cannot be written"):
        run_stability(SWEEP.replace(run_dir=str(tmp_path / "file" / "run")))
    with pytest.raises(training.RunFolderError, match="not empty and holds no sweep"):
        run_stability(SWEEP.replace(run_dir=str(tmp_path), resume=True))
    assert trained == []


def test_runs_that_two_experiments_share_are_one():
    runs = StabilitySweep().runs()
    assert {name: len(found) for name, found in runs.items()} == {
        "architectures": 9,
        "controls": 12,
        "sizes": 45,
        "dimensions": 36,
        "patch_sizes": 18,
        "views": 24,
    }
    # Shared are n = 256, d = 40, m = 4 and blocks, three seeds each of three networks.
    assert len({run.name for found in runs.values() for run in found}) == 81 + 27 + 18


def test_experiments_vary_what_they_say():
    """Each experiment's own axis; everything else is as the sweep's fields say."""
    runs = StabilitySweep(seeds=1).runs()
    widths = {"dense": 256, "local": 32, "conv": 128}
    base = {"num_train": 256, "patch_size": 4, "learning_rate": 0.4, "noise": 1.0}
    base |= {"dimension": 40, "views": "blocks", "radius": None, "num_test": 4000}
    assert set(runs) == set(EXPERIMENTS)
    expected = {
        "architectures": [(c, w, {"steps": 10_000}) for c, w in widths.items()],
        "controls": [
            ("conv", 256, {"steps": 10_000}),
            *(
                (c, w, {"steps": 80_000, "learning_rate": 0.05, "measure_every": 800})
                for c, w in widths.items()
            ),
        ],
        "sizes": [
            (c, widths[c], {"steps": 6000, "num_train": n})
            for c in widths
            for n in (64, 128, 256, 512, 1024)
        ],
        "dimensions": [
            (c, widths[c], {"steps": 6000, "dimension": d})
            for c in widths
            for d in (20, 40, 80, 160)
        ],
        "views": [
            (c, widths[c], {"steps": 6000, "views": views})
            for c in ("local", "conv")
            for views in ("blocks", "strided", "random", "identical")
        ],
        "patch_sizes": [
            ("conv", 128, {"steps": 6000, "patch_size": m}) for m in (1, 2, 4, 8, 20, 40)
        ],
    }
    for name, found in runs.items():
        for run, (connectivity, width, fields) in zip(found, expected[name], strict=True):
            wanted = base | fields | {"connectivity": connectivity, "width": width}
            assert {key: getattr(run, key) for key in wanted} == wanted


def test_all_runs_take_what_a_sweep_says():
    said = {"noise": 0.5, "radius": 2.0, "num_test": 7, "teacher_width": 3}
    runs = StabilitySweep(seeds=1, measure_every=50, **said).runs()
    for run in (run for found in runs.values() for run in found):
        assert {key: getattr(run, key) for key in said} == said
        assert run.steps // run.measure_every in (10_000 // 50, 6000 // 50)


@pytest.mark.parametrize(
    "change",
    [
        {"experiments": ("teachers",)},
        {"seeds": 0},
        {"sizes": (64,)},
        {"sizes": (64, 64)},
        {"patch_size": 7},
        {"patch_sizes": (4, 7)},
        {"dimensions": (40,)},
        {"noise": -1.0},
        {"radius": 0.0},
        {"conv_width": 0},
        {"max_minutes": 0.0},
    ],
)
def test_a_sweep_refuses_values_that_do_not_fit(change):
    with pytest.raises(training.ConfigError, match=next(iter(change)).rstrip("s")):
        StabilitySweep(**change)


@pytest.mark.slow
def test_experiments_meet_their_criteria(tmp_path):
    rows = run_stability(StabilitySweep(run_dir=str(tmp_path)))
    assert [check for check in check_stability(rows) if not check.passed] == []


def test_an_experiment_that_lacks_a_run_has_a_table_but_no_verdict(
    monkeypatch, tmp_path, report_without
):
    columns = ("train_error", "excess_risk", "gap_at_half_time", "gap", "relative_sharpness")
    columns += ("path_norm", "path_norm_bound", "active_share", "seconds")
    history = {name: [0.5, 1.0] for name in ("time", "gap", "path_norm", "path_norm_bound")}

    def train(run):
        numbers = dict.fromkeys(columns, run.patch_size / 7)
        return {
            "config": run.identity(),
            **numbers,
            "history": history,
            "environment": training.environment(),
        }

    monkeypatch.setattr(sweep, "stability_row", train)
    config = dataclasses.replace(
        SWEEP, experiments=("patch_sizes", "views"), patch_sizes=(2, 4, 20), run_dir=str(tmp_path)
    )
    lost = config.runs()["views"][0].name
    page = report_without(lambda: report_stability(config), tmp_path, lost)
    assert "Spearman correlation" in page and "Experiment views" not in page
    assert page.count("<h2>views") == 1
    resumed = dataclasses.replace(config, resume=True)
    monkeypatch.undo()
    monkeypatch.setattr(sweep, "stability_row", train)
    assert [len(found) for found in run_stability(resumed).values()] == [3, 8]
