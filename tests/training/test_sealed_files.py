"""Whatever happens to the bytes of a sealed file, what is read is what was written, or an error."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfconvbias import training

ROW = {"accuracy": 0.8125, "seed": 3, "widths": (4, 8), "note": "β", "best": None}
READ = {**ROW, "widths": [4, 8]}

quick = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def file(tmp_path):
    training.write_sealed(tmp_path / "row.json", ROW, "work", epochs=2)
    return tmp_path / "row.json"


def test_a_sealed_row_reads_back(file):
    row, seal = training.read_sealed(file, "work")
    assert row == READ
    assert (seal["work"], seal["epochs"]) == ("work", 2)
    assert training.read_sealed(file, None)[0] == READ
    with pytest.raises(training.RunFolderError, match=r"row\.json.*belongs to other work"):
        training.read_sealed(file, "other work")


@quick
@given(st.data())
def test_changed_bytes_never_give_another_row(file, data):
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    changed = file.with_name("changed.json")
    changed.write_bytes(content)
    try:
        row, seal = training.read_sealed(changed, "work")
    except training.RunFolderError as error:
        assert "changed.json is damaged" in str(error)
    else:
        # Only where the name of the seal itself is gone is it a file of an earlier version.
        assert row == READ or (not seal and json.loads(content).keys() != READ.keys())


@quick
@given(st.binary(max_size=60))
def test_any_content_is_read_or_refused(file, content):
    other = file.with_name("other.json")
    other.write_bytes(content)
    try:
        row, _ = training.read_sealed(other, "work")
    except training.RunFolderError as error:
        assert "other.json is damaged" in str(error)
    else:
        assert isinstance(row, dict)
