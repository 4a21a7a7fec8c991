"""Which trainings hold their images on an accelerator."""

from types import SimpleNamespace

import pytest

from tfconvbias.training import feeds


@pytest.mark.parametrize(
    ("asked", "strategy", "found", "expected"),
    [
        ("auto", "none", ["GPU:0"], True),
        ("auto", "none", [], False),
        ("auto", "mirrored", ["GPU:0"], False),
        ("off", "none", ["GPU:0"], False),
        ("on", "none", [], True),
    ],
)
def test_where_the_images_of_an_epoch_are(
    asked, strategy, found, expected, tiny_config, tiny_dataset, monkeypatch
):
    monkeypatch.setattr(feeds, "accelerators", lambda: found)
    feed = feeds.feed_of(
        tiny_dataset,
        batch_size=32,
        seed=0,
        shuffle=True,
        devices=SimpleNamespace(strategy=strategy),
        execution=tiny_config.replace(device_epochs=asked),
    )
    assert feed.is_on_device == expected
