"""Every page is one template: nothing that it shows can become a part of it."""

import ast
import itertools
import json
import re
from pathlib import Path

import chromium
import numpy as np
import pytest
from hostile import HOSTILE, check_harmless
from matplotlib.figure import Figure

import tfconvbias
from tfconvbias import plots, training
from tfconvbias.training import command_line
from tfconvbias.training.page_settings import setting_rows

SETTINGS = training.RunConfig(
    dataset="/elsewhere/mine", data_dir="elsewhere", seed=3, learning_rate=0.25
)

HISTORY = {
    "epoch": [1, 2, 3],
    "loss": [3.0, 2.0, 1.0],
    "accuracy": [0.1, 0.5, 1.0],
    "val_accuracy": [0.1, 0.4, 0.5],
    "nonzeros/conv1": [90, 50, 10],
}
ROWS = [{"model": HOSTILE, "test, %": "9.50"}, {"model": "b", "test, %": "81.20"}]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with every part that there is, all of hostile names."""
    folder = tmp_path_factory.mktemp("page")
    bars = {HOSTILE: {30: (50.0, 1.0), 300: (60.0, 2.0)}}
    figures = {
        "curves " + HOSTILE: (
            HOSTILE,
            plots.accuracy_curves({HOSTILE: HISTORY, "other": HISTORY}, title=HOSTILE),
        ),
        "bars": ("bars", plots.accuracy_pairs({HOSTILE: (50, 60)}, ("a", HOSTILE), HOSTILE)),
        "gaps": ("gaps", plots.gap_curves({HOSTILE: {HOSTILE: [([1, 10, 100], [0.1, 0.2, 0.3])]}})),
        "spread": ("spread", plots.spread_curves({HOSTILE: bars})),
        "widths": ("widths", plots.width_snakes([3, 4], {HOSTILE: [1, 2]})),
        "filters": ("filters", plots.filter_images(np.ones((9, 8, 8, 3)), title=HOSTILE)),
    }
    run = training.RunFolder(folder / 'a\udcff <b> "c" # ?')
    training.write_json(
        run.path / "config.json",
        {"augment": HOSTILE, "learning_rate": 0.1, "images": f"{HOSTILE} 0f"},
    )
    return training.write_page(
        folder / "report.html",
        HOSTILE,
        {HOSTILE: ROWS, "wide": [{f"column {i} {HOSTILE[:30]}": "123,456" for i in range(12)}]},
        figures,
        [HOSTILE],
        findings=[HOSTILE],
        settings={HOSTILE: run},
        command=HOSTILE,
    )


def test_hostile_names_are_shown_and_nothing_more(page):
    check_harmless(page)


def test_figures_stand_beside_the_page_under_names_of_their_own(tmp_path):
    names = ["a b", "a-b", "w" * 300, "w" * 299]
    history = {"epoch": [1], "loss": [1.0], "accuracy": [0.5]}
    figures = {name: ("", plots.accuracy_curves({"run": history})) for name in names}
    page = tmp_path / "report.html"
    training.write_page(
        page, "title", {}, figures, [], ("svg", "pdf"), findings=["Found."], settings=SETTINGS
    )
    files = list((tmp_path / "figures").iterdir())
    assert len(files) == 3 * len(names)
    assert max(len(file.name) for file in files) < 100


def test_the_library_stands_beside_pages_with_something_to_explore(tmp_path):
    pictures = {"filters": ("", plots.filter_images(np.ones((1, 4, 4, 1))))}
    curves = {"curves": ("", plots.accuracy_curves({"run": HISTORY}))}
    for name, figures in (("pictures", pictures), ("curves", curves)):
        page = tmp_path / name / "report.html"
        training.write_page(page, "title", {}, figures, [], findings=["Found."], settings=SETTINGS)
        scripts = [f"scripts/{file.name}" for file in page.parent.glob("scripts/*.js")]
        assert len(scripts) == (name == "curves")
        assert all(script in page.read_text() for script in scripts)


def test_panels_side_by_side_are_stacked_for_a_phone():
    figure = plots.accuracy_curves({f"a name of some length {i}": HISTORY for i in range(4)})
    before = [axis.get_ylabel() for axis in figure.axes]
    width, height = figure.get_size_inches()
    assert plots.stack_panels(figure)
    figure.canvas.draw()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 4
    assert 0 <= legend.get_window_extent().x0 < legend.get_window_extent().x1 <= figure.bbox.x1
    boxes = [axis.get_position() for axis in figure.axes]
    assert [axis.get_ylabel() for axis in figure.axes] == before
    assert all(above.y0 > below.y1 for above, below in itertools.pairwise(boxes))
    assert tuple(figure.get_size_inches()) == pytest.approx((width / 3, 3 * height))
    single = plots.accuracy_pairs({"m": (50, 60)}, ("a", "b"))
    assert not plots.stack_panels(single)


@pytest.mark.parametrize(("num", "rows"), [(9, 3), (5, 2)])
def test_filters_stand_four_in_a_row_on_a_phone(num, rows):
    figure = plots.filter_images(np.ones((num, 8, 8, 3)))
    assert plots.stack_panels(figure)
    places = [axis.get_subplotspec() for axis in figure.axes]
    assert {place.get_geometry()[:2] for place in places} == {(rows, 4)}
    assert [place.num1 for place in places] == list(range(num))
    # No more than what a phone shows without scrolling.
    width, height = figure.get_size_inches()
    assert width < 4.5 and 1 < height / rows < 1.7
    assert not plots.stack_panels(plots.filter_images(np.ones((3, 8, 8, 3)), columns=4))


def test_interactive_figures_hold_the_numbers_of_the_drawn_ones():
    first, *_ = plots.interactive(plots.accuracy_curves({"run": HISTORY, "two": HISTORY}))
    found = json.dumps(first)
    assert '"shown_y"' in found
    assert found.count('"min_interval": 1') == 1  # epochs are whole, losses are not
    assert found.count(json.dumps([3.0, 2.0, 1.0])) >= 2
    (bars,) = plots.interactive(plots.accuracy_pairs({"m": (50, 60), "n": (70, 80)}, ("a", "b")))
    # The bars of one name are one part, with the values that the pointer shows.
    assert json.dumps(bars).count(json.dumps(["50", "70"])) == 1
    assert plots.interactive(plots.filter_images(np.ones((1, 4, 4, 1)))) is None
    figure = Figure()
    figure.add_subplot(1, 2, 1)
    assert plots.interactive(figure) is None
    figure.add_subplot(1, 2, 2).plot([1, 2])
    assert len(plots.interactive(figure)) == 1


def test_no_page_is_without_conclusion_settings_or_command(tmp_path, monkeypatch):
    """Of a study the page shows every field that decides, of runs those that readers ask for."""
    page = tmp_path / "report.html"
    with pytest.raises(ValueError, match="`findings` must say"):
        training.write_page(page, "title", {}, {}, [], findings=[], settings=SETTINGS)
    with pytest.raises(ValueError, match="`settings` must be a configuration, or hold runs"):
        training.write_page(page, "title", {}, {}, [], findings=["Found."], settings={})
    monkeypatch.setattr(command_line, "typed", ("--lr", "2 3", "--resume"))
    monkeypatch.setattr("sys.argv", ["recipes/walk.py"])
    training.write_page(page, "title", {"T": ROWS}, {}, [], findings=["Found."], settings=SETTINGS)
    text = page.read_text()
    places = [text.index(part) for part in ("Found.", "recipes/walk.py", "data set", "81.20")]
    assert places == sorted(places)
    assert "python recipes/walk.py --lr &#39;2 3&#39;</code>" in text
    shown = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    assert (shown["data set"], shown["seed"], shown["learning rate"]) == ("mine", "3", "0.25")
    # SGD has neither penalty nor threshold; where the data lie is not shown.
    assert not {"β", "λ, convolutions", "λ, other layers", "data dir"} & shown.keys()
    assert "elsewhere" not in text
    decides = {name for name, value in SETTINGS.identity().items() if value not in (None, ())}
    assert len(shown) == len({*decides, "dataset", "num_train"}) - 3


def test_sgd_has_neither_threshold_nor_penalty_in_the_settings():
    shared = {"learning_rate": 0.1, "l1": 5e-6, "beta": 50.0}
    sgd, lasso = setting_rows(
        {
            "a": {"optimizer": "sgd", **shared},
            "b": {"optimizer": "sgd", **shared},
            "c": {"optimizer": "beta_lasso", **shared},
        }
    )
    assert (sgd["run"], sgd["λ, other layers"], sgd["β"]) == ("a; b", "–", "–")
    assert (lasso["λ, other layers"], lasso["β"]) == ("5e-06", "50.0")


def test_pages_are_written_in_one_place():
    """What makes HTML is the one page writer, whose template escapes by itself."""
    marks = ("<html", "<td", "page.html")
    writers = {
        path.name
        for path in Path(tfconvbias.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and any(mark in str(node.value) for mark in marks)
    }
    assert writers == {"page.py"}


@pytest.mark.slow
@pytest.mark.skipif(chromium.CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_the_page_without_complaint(page, tmp_path):
    over = "document.scrollingElement.scrollWidth - window.innerWidth"
    click = "document.querySelectorAll('.explore').forEach((button) => button.click())"
    drawn = """(async () => {
      for (let tries = 0; tries < 600; tries += 1) {
        const shown = document.querySelectorAll(".plots > div > *").length;
        if (shown === 7) return shown;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    })()"""
    cell = "document.querySelectorAll('main > .scroll table')[0].tBodies[0].rows[0].cells[1]"
    heading = "document.querySelectorAll('main > .scroll th button')[1].click()"
    hidden = (
        "[...document.querySelectorAll('.picture')].filter((p) => p.scrollWidth > p.clientWidth)"
    )
    with chromium.chromium(tmp_path / "profile") as tab:
        papers = set()
        for width in (1280, 390):
            for dark in (False, True):
                tab.open(page, width, dark)
                assert tab.evaluate(over) <= 0
                assert tab.evaluate(f"{hidden}.length") == 0
                papers.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
            tab.screenshot(tmp_path / f"{width}.png")
            assert tab.evaluate(f"{cell}.textContent") == "9.50"
            tab.evaluate(f"{heading}; {heading}")
            assert tab.evaluate(f"{cell}.textContent") == "81.20"
            tab.evaluate(click)
            assert tab.evaluate(drawn) == 7
            assert tab.evaluate(over) <= 0
            assert tab.errors == []
        assert len(papers) == 2
        # The page's policy stops what an injected part would do.
        tab.evaluate("const s = document.createElement('script'); s.textContent = 'window.hit = 1'")
        tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=hit=1>')")
        assert tab.evaluate("window.hit") is None
