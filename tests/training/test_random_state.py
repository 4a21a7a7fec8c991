"""What a run folder stores comes back equal, whatever the numbers and the damage."""

import csv
import json
import math
import tempfile
from pathlib import Path

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from random_cases import random_cases

from tfconvbias import training
from tfconvbias.training.checkpoints import Checkpoints

_NUMBERS = st.floats(width=32, allow_nan=False)


def _model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


@random_cases(
    10,
    kernel=arrays.arrays("float32", (2, 3), elements=_NUMBERS),
    momentum=arrays.arrays("float32", (2, 3), elements=_NUMBERS),
    steps=st.integers(0, 2**40),
)
def test_weights_and_optimizer_come_back_bit_by_bit(kernel, momentum, steps):
    model, other = _model(), _model()
    model.layers[-1].kernel.assign(kernel)
    model.optimizer.momentums[0].assign(momentum)
    model.optimizer.iterations.assign(steps)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), "work")
        checkpoints.save(model, 3, num_kept=1, history="")
        epoch, file = checkpoints.latest()
        other.load_weights(file)
    assert epoch == 3
    for mine, stored in [
        (model.layers[-1].kernel, other.layers[-1].kernel),
        (model.optimizer.momentums[0], other.optimizer.momentums[0]),
        (model.optimizer.iterations, other.optimizer.iterations),
    ]:
        before, after = (keras.ops.convert_to_numpy(v).tobytes() for v in (mine, stored))
        assert before == after


class _Stub:
    """Saves a few bytes in place of a network's weights."""

    def __init__(self, content):
        self.content = content

    def save_weights(self, file):
        Path(file).write_bytes(self.content)


_ACTIONS = st.one_of(
    st.tuples(st.just("save"), st.integers(1, 12), st.integers(1, 3)),
    st.tuples(st.sampled_from(["damage", "lose the seal"]), st.integers(1, 12), st.just(0)),
)


@random_cases(20, actions=st.lists(_ACTIONS, min_size=1, max_size=8))
def test_the_newest_whole_checkpoint_is_used(actions):
    whole: dict[int, bool] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoints = Checkpoints(folder, "work")
        for action, epoch, num_kept in actions:
            file = folder / f"checkpoint-{epoch}.weights.h5"
            if action == "save":
                checkpoints.save(_Stub(b"weights of epoch %d" % epoch), epoch, num_kept, "")
                whole[epoch] = True
                whole = {n: whole[n] for n in sorted(whole)[-num_kept:]}
            elif epoch in whole:
                if action == "damage":
                    file.write_bytes(b"w" + file.read_bytes()[:-1])
                else:
                    file.with_name(f"checkpoint-{epoch}.json").unlink(missing_ok=True)
                whole[epoch] = False
        assert sorted(p.name for p in folder.glob("*.h5")) == sorted(
            f"checkpoint-{n}.weights.h5" for n in whole
        )
        if not whole:
            assert checkpoints.latest() is None
        elif not any(whole.values()):
            with pytest.raises(training.RunFolderError, match="No other checkpoint is left"):
                checkpoints.latest()
        else:
            best = max(n for n, is_whole in whole.items() if is_whole)
            epoch, file = checkpoints.latest()
            assert (epoch, file.read_bytes()) == (best, b"weights of epoch %d" % best)
            other = Checkpoints(folder, "other work")
            with pytest.raises(training.RunFolderError, match="belongs to another training"):
                other.latest()


_VALUES = st.floats(allow_nan=False)
_TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)


@random_cases(20, rows=st.lists(st.tuples(_VALUES, _TEXTS), min_size=1, max_size=4))
def test_tables_and_json_read_back_equal(rows):
    content = [{"number": number, "text": text} for number, text in rows]
    hypothesis.assume(all(math.isfinite(number) for number, _ in rows))
    with tempfile.TemporaryDirectory() as name:
        table, document = Path(name) / "rows.csv", Path(name) / "rows.json"
        training.write_rows(table, content)
        training.write_json(document, content)
        assert json.loads(document.read_text("utf-8")) == content
        with table.open(newline="", encoding="utf-8") as stream:
            read = [(float(row["number"]), row["text"]) for row in csv.DictReader(stream)]
        assert np.array_equal([n for n, _ in read], [n for n, _ in rows])
        assert [text for _, text in read] == [text for _, text in rows]
