"""Every training recipe runs on embedded data, and its report parses."""

import html.parser
import json
import runpy
import sys
from pathlib import Path

import pytest

from tfconvbias import training

RECIPES = Path(__file__).parent.parent / "recipes"
SINGLE = [
    pytest.param("sconv_cifar100", marks=pytest.mark.backend),
    "sfc_beta_lasso",
    "train",
]
SMALL = ["--demo", "--epochs", "1", "--num-train", "256", "--no-tensorboard", "--verbose", "silent"]


def run_recipe(name, *argv):
    sys.argv = [str(RECIPES / f"{name}.py"), *argv]
    runpy.run_path(sys.argv[0], run_name="__main__")


class Page(html.parser.HTMLParser):
    """Collects tags, and checks that they are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("img", "meta", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(autouse=True)
def _keep_argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.mark.parametrize("name", SINGLE)
def test_demo_runs_and_reports(name, tmp_path, capsys):
    run_recipe(name, *SMALL, "--run-dir", str(tmp_path / "run"))
    row = json.loads((tmp_path / "run" / "result.json").read_text())
    assert row["dataset"] == "motifs10"
    assert 0 <= row["test_accuracy"] <= 1
    assert f"{100 * row['test_accuracy']:.2f}" in capsys.readouterr().out
    page = Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert page.tags.count("img") == 3
    assert "motifs10" in page.text


def test_comparison_reports_every_row_and_resumes(tmp_path, capsys):
    argv = [*SMALL, "--run-dir", str(tmp_path / "all")]
    run_recipe("compare_s_family", *argv)
    shown = capsys.readouterr().out
    page = Page((tmp_path / "all" / "report.html").read_text(encoding="utf-8"))
    for row in ("S-CONV, SGD", "S-LOCAL, SGD", "S-FC, SGD", "S-FC, β-LASSO"):
        assert row in shown
        assert row in page.text
    assert "Locality of layer 1" in page.text
    run_recipe("compare_s_family", *argv, "--resume")
    assert "Epoch" not in capsys.readouterr().out


def test_a_data_set_that_cannot_be_had_names_the_commands_that_work(monkeypatch, capsys):
    from tfconvbias import data

    def unavailable(*args, **kwargs):
        raise data.DatasetUnavailableError("cifar100", "no answer")

    monkeypatch.setattr(data, "load", unavailable)
    with pytest.raises(SystemExit) as stop:
        run_recipe("sconv_cifar100")
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert "no answer" in message
    assert "sconv_cifar100.py --demo" in message
    assert "sconv_cifar100.py --dataset FOLDER" in message


def test_faults_of_the_user_end_in_one_message(tmp_path, capsys):
    for argv, message in (
        (["--dataset", str(tmp_path / "nowhere")], "nowhere"),
        (["--dataset", "cifra10"], "cifar10"),
        (["--demo", "--batch-size", "99999"], "batch_size=99999"),
        (["--demo", "--augment", "wobble"], "wobble"),
    ):
        with pytest.raises(SystemExit) as stop:
            run_recipe("sconv_cifar100", *argv, "--run-dir", str(tmp_path / "run"))
        assert stop.value.code == 1
        assert message in capsys.readouterr().err


def test_every_row_diverging_is_an_error_not_a_table(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_recipe("train", *SMALL, "--learning-rate", "1e30", "--run-dir", str(tmp_path / "run"))
    assert "NaN or infinite in epoch 1" in capsys.readouterr().err
    assert training.RunFolder(tmp_path / "run").result() is None
