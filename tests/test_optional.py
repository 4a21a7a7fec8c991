"""A part whose package is not installed says which extra brings it."""

import sys

import pytest

from tfconvbias import data, tuning
from tfconvbias.optional import MissingPackageError, require


def test_a_search_without_keras_tuner_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_tuner", None)
    with pytest.raises(MissingPackageError, match="extra 'tuner' brings it"):
        _ = tuning.GridOracle
    with pytest.raises(MissingPackageError, match="A search needs the package keras_tuner"):
        tuning.search(tuning.SearchConfig())


def test_a_named_data_set_without_tensorflow_datasets_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(data.DatasetUnavailableError, match="extra 'datasets' brings it"):
        data.load("cifar10")


def test_a_package_that_fails_for_another_reason_is_not_said_to_be_missing(monkeypatch, tmp_path):
    (tmp_path / "broken_part.py").write_text("import no_such_package_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package_anywhere"):
        require("broken_part", "core", "This")
