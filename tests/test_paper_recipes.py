"""The tables' and figures' recipes run on embedded data, and their reports show what they ought."""

import runpy
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parent.parent / "recipes"
SMALL = ["--demo", "--epochs", "1", "--num-train", "256", "--no-tensorboard", "--verbose", "silent"]


@pytest.fixture
def recipe(monkeypatch, tmp_path, capsys):
    """Run a recipe; its output, the report's text and the names of its figures."""

    def run(name, *argv, folder="run"):
        monkeypatch.setattr(sys, "argv", [str(RECIPES / f"{name}.py"), *argv])
        sys.argv += ["--run-dir", str(tmp_path / folder)]
        runpy.run_path(sys.argv[0], run_name="__main__")
        page = (tmp_path / folder / "report.html").read_text(encoding="utf-8")
        figures = sorted(path.stem for path in (tmp_path / folder / "figures").glob("*.png"))
        assert page.count("<img") == len(figures)
        return capsys.readouterr().out, page, figures

    return run


def test_table_1_goes_on_row_by_row(recipe, tmp_path):
    small = [*SMALL, "--base-channels", "1", "--rows"]
    shown, _, _ = recipe("table1", *small, "s-conv")
    assert "S-CONV" in shown
    written = tmp_path / "run" / "s-conv-motifs10-seed-0" / "result.json"
    first = written.stat().st_mtime_ns
    shown, page, figures = recipe("table1", *small, "s-conv", "3-fc", "--resume")
    assert written.stat().st_mtime_ns == first
    for row in ("S-CONV", "3-FC"):
        assert f"| {row} " in shown
        assert f"<td>{row}</td>" in page
    assert "paper" not in shown
    for name, value in (("training images", 256), ("epochs", 1), ("seed", 0)):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in page
    assert figures == ["accuracy-motifs10"]


def test_table_2_thresholds_as_its_rows_say(recipe):
    shown, _, _ = recipe(
        "table2", *SMALL, "--base-channels", "1", "--rows", "s-fc-beta-0", "s-fc-beta-50"
    )
    head, _, *rows = [line.split("|") for line in shown.splitlines() if line.startswith("|")]
    columns = [
        [cell.strip() for cell in head].index(name) for name in ("kernel weights", "non-zero")
    ]
    weights = [tuple(int(row[n].replace(",", "")) for n in columns) for row in rows]
    assert weights[0][0] == weights[0][1]
    assert weights[1][1] < weights[1][0]


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_an_unknown_row_lists_the_valid_ones(name, recipe, capsys):
    with pytest.raises(SystemExit) as stop:
        recipe(name, "--rows", "s-foo")
    assert stop.value.code != 0
    assert "There is no row s-foo" in (message := capsys.readouterr().err)
    assert "3-fc" in message


def test_parameters_are_counted_without_training(recipe):
    shown, _, figures = recipe(
        "figure1_parameters", "--base-channels", "150", "--image-sizes", "32"
    )
    assert "256,240,800" in shown
    assert "11,713,920" in shown
    assert figures == ["parameters"]


def test_scaling_has_members_and_a_regime(recipe):
    small = ["--families", "S-CONV", "3-FC", "--budgets", "8000", "--train-accuracy", "0.1"]
    shown, page, figures = recipe("figure2_scaling", *SMALL, *small)
    assert "Over-parameterised" in shown
    assert "reached by S-CONV with" in page
    assert figures == ["scaling-motifs10"]


def test_nonzeros_stand_beside_the_other_networks_counts(recipe):
    shown, page, figures = recipe("figure3_nonzeros", *SMALL, "--base-channels", "1")
    first = next(line.split("|") for line in shown.splitlines() if line.startswith("| conv1"))
    assert [cell.strip() for cell in first[5:7]] == ["243", "62,208"]
    assert "it has 243 weights in S-CONV and 62,208 weights in S-LOCAL." in page
    assert figures == ["nonzeros-motifs10"]


def test_filters_are_drawn_and_measured(recipe):
    shown, page, figures = recipe("figure4_filters", *SMALL, "--base-channels", "1")
    local = next(line.split("|") for line in shown.splitlines() if line.startswith("| S-LOCAL"))
    assert "with ≥ 20 weights" in shown
    ratio, ratio_of_shares = (float(local[place].strip()) for place in (5, 8))
    assert ratio < 0.5 and ratio_of_shares > 2
    assert f"{local[5].strip()} for S-LOCAL, SGD." in page
    assert len(figures) == 3


def test_kernel_sizes_by_optimizer(recipe, monkeypatch):
    # One stage of four, as compiling takes most of the time.
    monkeypatch.setattr("tfconvbias.models.resnet18.STAGES", ((1, 1),))
    shown, _, figures = recipe(
        "figure5_kernel_size", *SMALL, "--base-channels", "1", "--kernel-sizes", "3"
    )
    assert "β-LASSO" in shown
    assert "paper" not in shown
    assert figures == ["kernel-size"]


def test_permuted_pixels_stand_beside_plain_ones(recipe, tmp_path):
    shown, _, figures = recipe("permutation_invariance", *SMALL, "--base-channels", "1")
    assert "pixels permuted" in shown
    assert len(list((tmp_path / "run").glob("*-permuted-motifs10-seed-0"))) == 3
    assert figures == ["permutation-motifs10"]


def test_the_protocol_reports_every_length_and_feeds_a_table(recipe, tmp_path):
    small = [
        *("--demo", "--base-channels", "1", "--num-train", "256", "--num-test", "100"),
        *("--rows", "s-fc-beta-lasso", "--pulls", "0.1", "--cutoffs", "0.1", "--seeds", "1"),
        *("--momenta", "0.9", "--epochs-list", "1"),
    ]
    shown, page, figures = recipe("protocol", *small)
    assert "[2/2]" in shown
    assert "pull 0.1, cutoff 0.1, dropout 0" in page
    assert figures == ["gaps-motifs10"]
    tests = (tmp_path / "run" / "tests.csv").read_text().splitlines()
    assert len(tests) == 2
    assert tests[0].startswith("row,dataset,epochs,setting,num_settings,seed,val_accuracy")
