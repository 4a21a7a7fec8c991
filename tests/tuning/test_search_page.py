"""The page of a search shows its trials, and nothing that a name would add to it."""

from hostile import HOSTILE, check_harmless

from tfconvbias.training import RunConfig
from tfconvbias.tuning import SearchConfig
from tfconvbias.tuning.report import write_search_report
from tfconvbias.tuning.results import SearchResults


def test_the_best_trial_comes_first_with_its_command(tmp_path):
    trials = [
        {"trial": "3", "status": "COMPLETED", "val_accuracy": 0.8125, "nonzero_share": 0.5},
        {"trial": HOSTILE, "status": "COMPLETED", "val_accuracy": 0.5, "nonzero_share": 0.01},
        {"trial": "2", "status": "FAILED", "val_accuracy": None, "nonzero_share": None},
    ]
    results = SearchResults(tmp_path, trials, RunConfig(learning_rate=0.25))
    page = write_search_report(SearchConfig(), results)
    check_harmless(page)
    text = page.read_text(encoding="utf-8")
    assert "Best of 2 finished trials: trial 3, 81.25 % of the validation images." in text
    assert "recipes/train.py --learning-rate 0.25" in text
    assert "<td>2</td><td></td><td></td><td>failed</td>" in text
    assert (tmp_path / "figures" / "trials.svg").exists()
