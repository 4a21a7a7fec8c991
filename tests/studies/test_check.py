import pytest

from tfconvbias.studies.check import Check, check_rows


@pytest.mark.parametrize(
    ("value", "relation", "bound", "wanted", "passed"),
    [
        (0.1, "<", 0.1, "< 0.1", False),
        (0.1, "≤", 0.1, "≤ 0.1", True),
        (0.1, ">", 0.1, "> 0.1", False),
        (0.1, "≥", 0.1, "≥ 0.1", True),
        (-0.5, "<", -0.4, "< −0.4", True),
        (-0.3, "<", -0.4, "< −0.4", False),
        (2, ">", 1, "> 1", True),
        (float("nan"), "<", 1, "< 1", False),
        (float("nan"), ">", 1, "> 1", False),
    ],
)
def test_a_value_is_compared_with_the_bound_that_is_shown(value, relation, bound, wanted, passed):
    check = Check.of("gap", value, relation, bound)
    assert check[2:] == (wanted, passed)
    assert check.verdict == ("pass" if passed else "FAIL")


def test_rows_show_every_criterion():
    checks = [Check.of("gap", 0.12345, "<", 1 / 3, "a third"), Check.of("error", 20, "<", 0)]
    assert check_rows(checks) == [
        {"criterion": "gap", "value": "0.123", "wanted": "< 0.333, a third", "verdict": "pass"},
        {"criterion": "error", "value": "20", "wanted": "< 0", "verdict": "FAIL"},
    ]
