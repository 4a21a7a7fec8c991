"""Names of folders."""

import pytest

from tfconvbias.training import slug


@pytest.mark.parametrize(
    ("label", "folder"),
    [
        ("S-LOCAL, β = 50, 9×9", "s-local-beta-50-9x9"),
        ("one", "one"),
        ("  Ångström/../two ", "ngstr-m-two"),
    ],
)
def test_a_label_as_a_folder(label, folder):
    assert slug(label) == folder
