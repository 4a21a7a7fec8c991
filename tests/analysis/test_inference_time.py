import time

import keras
import numpy as np
import pytest

from tfconvbias.analysis import inference_times, time_ratio


class _Slow(keras.Model):
    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds
        self.calls = 0

    def predict_on_batch(self, x):
        self.calls += 1
        time.sleep(self.seconds)


def test_models_take_turns_and_the_first_one_is_not_counted():
    models = {"quick": _Slow(0.0), "slow": _Slow(0.02)}
    times = inference_times(models, np.ones((2, 3)), turns=4)
    assert {name: len(found) for name, found in times.items()} == {"quick": 4, "slow": 4}
    assert models["quick"].calls == 5
    assert min(times["slow"]) >= 0.02
    assert time_ratio(times["quick"], times["slow"]) < 1
    with pytest.raises(ValueError, match="turns=0"):
        inference_times(models, np.ones((2, 3)), turns=0)
