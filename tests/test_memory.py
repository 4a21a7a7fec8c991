"""What TensorFlow and the driver say of an accelerator's memory, without one."""

import types

import keras
import pytest

from tfconvbias import memory

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def one_card(monkeypatch):
    """TensorFlow as it is with a GPU of which 3 MiB are in use; the user's limit goes in."""
    import tensorflow as tf

    limits = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [f"{kind}:0"])
    monkeypatch.setattr(
        tf.config,
        "get_logical_device_configuration",
        lambda _: [types.SimpleNamespace(memory_limit=limit) for limit in limits],
    )
    monkeypatch.setattr(
        tf.config.experimental, "get_memory_info", lambda _: {"current": 3 * 2**20, "peak": 2**30}
    )
    return limits


def _driver(tmp_path, monkeypatch, answer):
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/asked"\n{answer}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_the_limit_that_the_user_has_set(one_card):
    assert keras.config.backend() == "tensorflow"
    one_card.append(10)
    assert memory.available_bytes() == 7 * 2**20


@pytest.mark.parametrize(
    ("answer", "expected"), [("echo 12", 9 * 2**20), ("echo '[N/A]'", None), ("exit 9", None)]
)
def test_the_card_by_its_driver(one_card, tmp_path, monkeypatch, answer, expected):
    _driver(tmp_path, monkeypatch, answer)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    found = memory.available_bytes()
    assert (found == expected) if expected is not None else found > 2**24
    assert (tmp_path / "asked").read_text().split()[-2:] == ["-i", "2"]


def test_without_a_card(monkeypatch):
    monkeypatch.setattr(memory, "_card_memory", lambda: 1)
    assert memory.available_bytes() > 2**24
