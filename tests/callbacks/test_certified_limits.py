"""What certified sparse training refuses, because it would not be the dense run."""

import keras
import pytest
from certified_runs import BACKEND, BATCH, COMPILED, always, examples, lasso, mlp, train
from keras import layers, ops

from tfconvbias.callbacks import CertifiedSparsity
from tfconvbias.optimizers import BetaLasso


@pytest.mark.parametrize(
    "changes",
    [
        {"momentum": 0.9},
        {"weight_decay": 1e-3},
        {"clipnorm": 1.0},
        {"global_clipnorm": 1.0},
        {"use_ema": True},
        {"gradient_accumulation_steps": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_refused_options_of_the_optimizer(changes):
    name = next(iter(changes))
    with pytest.raises(ValueError, match=f"cannot be exact with `{name}`"):
        train(mlp, always(), epochs=1, **changes)


@pytest.mark.parametrize(
    ("optimizer", "received"),
    [
        (keras.optimizers.SGD(0.1), "Received: SGD"),
        (
            keras.optimizers.LossScaleOptimizer(BetaLasso(0.1, 1e-4, 1.0)),
            "Received: LossScaleOptimizer",
        ),
    ],
)
def test_refused_optimizers(optimizer, received):
    model = mlp()
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=COMPILED)
    with pytest.raises(ValueError, match=received):
        model.fit(*examples(), BATCH, verbose=0, callbacks=[always()])


def test_a_train_step_of_its_own_is_refused():
    class Own(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data)

    def build(dtype):
        return Own([keras.Input((20,)), layers.Dense(3)])

    with pytest.raises(ValueError, match="a model of Own"):
        train(build, always(), epochs=1)
    model = mlp()
    model.compile(BetaLasso(0.1, l1=0.1, beta=1.0), "sparse_categorical_crossentropy")
    model.train_step = lambda *arguments: keras.Model.train_step(model, *arguments)
    with pytest.raises(ValueError, match="`train_step` of its own"):
        always().check(model)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"kernel_regularizer": "l2"}, "has a regularizer"),
        ({"kernel_constraint": "non_neg"}, "has a constraint"),
        ({"trainable": False}, "is not trained"),
        ({"dtype": "mixed_bfloat16"}, "computes in bfloat16"),
    ],
    ids=lambda value: None,
)
def test_layers_that_stay_dense(options, reason):
    def build(dtype):
        return keras.Sequential(
            [
                keras.Input((20,)),
                layers.Dense(8, name="special", **options),
                layers.Dense(3, name="plain"),
            ]
        )

    with pytest.raises(ValueError, match=f"'special' {reason}"):
        train(build, CertifiedSparsity("special", choose="always"), epochs=1)
    sparsity = always()
    train(build, sparsity, epochs=1)
    assert [done.layer for done in sparsity.report] == ["plain"]


def test_a_subclass_of_dense_stays_dense():
    class Doubled(layers.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    def build(dtype):
        return keras.Sequential([keras.Input((20,)), Doubled(8, name="twice"), layers.Dense(3)])

    with pytest.raises(ValueError, match="'twice' is a Doubled"):
        train(build, CertifiedSparsity("twice"), epochs=1)


def test_a_layer_that_is_not_penalized_stays_dense():
    with pytest.raises(ValueError, match="'fc1' is not penalized"):
        train(mlp, CertifiedSparsity("fc1"), epochs=1, penalized="fc2/kernel")


def test_a_kernel_that_is_used_elsewhere_is_refused():
    class Tied(keras.Model):
        def __init__(self):
            super().__init__()
            self.fc1 = layers.Dense(20, name="fc1")
            self.fc2 = layers.Dense(3, name="fc2")

        def call(self, inputs):
            return self.fc2(ops.matmul(self.fc1(inputs), ops.transpose(self.fc1.kernel)))

    model = Tied()
    model.compile(lasso(1), "sparse_categorical_crossentropy", jit_compile=COMPILED)
    if BACKEND == "tensorflow":
        # Elsewhere `fit` has built it by then.
        with pytest.raises(ValueError, match="before it is built"):
            model.fit(*examples(), BATCH, verbose=0, callbacks=[always()])
    model(examples()[0])
    with pytest.raises(ValueError, match="Leave the layer out"):
        model.fit(*examples(), BATCH, verbose=0, callbacks=[always()])
    assert tuple(model.fc1.kernel.shape) == (20, 20)
    model.fit(*examples(), BATCH, verbose=0, callbacks=[CertifiedSparsity("fc2", verbose=0)])


def test_no_matching_layer_is_refused():
    with pytest.raises(ValueError, match="which matches no dense layer"):
        train(mlp, CertifiedSparsity("conv"), epochs=1)
