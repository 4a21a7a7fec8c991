"""Every public function refuses nonsense, at once and in words that name the argument."""

import collections

import pytest
from public_calls import bad_values, call_with, cases, public_callables

CASES = collections.defaultdict(list)
for _case in cases():
    CASES[f"{_case.package}.{_case.name}"].append(_case)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_nonsense_is_refused_in_a_sentence_that_names_the_argument(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = [
        f"{case.parameter.name}={value!r:.40}: {outcome.kind} {outcome.detail}"
        for case in CASES[name]
        for value in bad_values(case)
        if (outcome := call_with(case, value)).kind != "clear"
    ]
    assert not wrong, "\n".join(wrong)


def test_all_packages_and_thousands_of_calls_are_tried():
    tried = [value for of_name in CASES.values() for case in of_name for value in bad_values(case)]
    assert len(tried) > 3500
    assert {"SConv", "BetaLasso", "prune", "embed", "Sharpness", "run"} <= {
        name for _, name, _ in public_callables()
    }
