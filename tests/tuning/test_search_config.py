import math

import keras
import keras_tuner
import pytest

from tfconvbias.training import ConfigError, RunConfig, RunFolder
from tfconvbias.tuning import BetaLassoHyperModel, SearchConfig, SGDHyperModel, hypermodel


def test_default_choices_are_the_papers_grids():
    sgd = SearchConfig().replace(optimizer="sgd").choices()
    assert sgd["momentum"] == (0.0, 0.9)
    assert sgd["weight_decay"] == (0.0, 1e-4, 2e-4, 5e-4, 1e-3)
    assert math.prod(map(len, sgd.values())) == 20
    lasso = (
        SearchConfig().replace(optimizer="beta_lasso", learning_rates=(0.01, 0.1, 1.0)).choices()
    )
    assert lasso["l1"] == lasso["l1_conv"] == (1e-6, 2e-6, 5e-6, 1e-5, 2e-5)
    assert math.prod(map(len, lasso.values())) == 150
    assert "momentum" not in lasso
    flat = SearchConfig().replace(optimizer="beta_lasso", family="three_fc", connectivity="dense")
    assert "l1_conv" not in flat.choices()


def test_trials_are_run_configurations():
    config = SearchConfig().replace(optimizer="beta_lasso", epochs=3, run_dir="there", resume=True)
    trial = config.trial({"l1": 1e-6, "dropout_rate": 0.5})
    assert type(trial) is RunConfig
    assert (trial.epochs, trial.l1, trial.dropout_rate) == (3, 1e-6, 0.5)
    assert (trial.run_dir, trial.resume) == (None, False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"momenta": ()}, "momentum must be one or more, all different"),
        ({"momenta": (0.9, 0.9)}, "all different. Received: \\(0.9, 0.9\\)"),
        ({"momenta": (1.0,)}, "momentum=1.0"),
        ({"dropout_rates": (1.5,)}, "dropout_rate=1.5"),
        ({"learning_rates": (-0.1,)}, "learning_rate=-0.1"),
        ({"max_trials": 0}, "max_trials=0"),
        ({"nonzero_price": -1.0}, "nonzero_price=-1.0"),
        ({"hyperband_factor": 1}, "hyperband_factor=1"),
        ({"worker_timeout": 0.0}, "worker_timeout"),
        ({"algorithm": "hyperband", "max_trials": 3}, "max_trials=3"),
        ({"family": "resnet18", "dropout_rates": (0.5,)}, "no dropout"),
    ],
)
def test_bad_configurations(change, message):
    with pytest.raises(ConfigError, match=message):
        SearchConfig().replace(**change)


def test_hypermodels_declare_their_choices(dataset, tiny):
    for optimizer, kind in (("sgd", SGDHyperModel), ("beta_lasso", BetaLassoHyperModel)):
        config = SearchConfig().replace(**{**tiny, "optimizer": optimizer})
        space = hypermodel(config, dataset)
        assert isinstance(space, kind)
        hp = keras_tuner.HyperParameters()
        space.declare_hyperparameters(hp)
        assert {p.name: tuple(p.values) for p in hp.space} == config.choices()
        assert space.configure(hp) == config.trial({p.name: p.values[0] for p in hp.space})


def test_hypermodels_work_with_keras_tuners_own_tuners(dataset, tiny, tmp_path):
    config = SearchConfig().replace(
        **{**tiny, "epochs": 1, "momenta": (0.9,), "weight_decays": (1e-3,)}
    )
    tuner = keras_tuner.RandomSearch(
        SGDHyperModel(config, dataset),
        objective="val_accuracy",
        max_trials=1,
        directory=tmp_path,
    )
    with pytest.warns(DeprecationWarning, match="currentThread|getName"):
        tuner.search(verbose=0)
    assert tuner.get_best_hyperparameters()[0].values["momentum"] == 0.9


@pytest.mark.parametrize("kind", [SGDHyperModel, BetaLassoHyperModel])
def test_hypermodels_take_networks_of_ones_own(kind, dataset, tiny):
    def one_layer(config, images):
        inputs = keras.Input(images.image_shape, dtype="uint8")
        x = keras.layers.Rescaling(1 / 255)(inputs)
        x = keras.layers.Flatten()(x)
        x = keras.layers.Dropout(config.dropout_rate)(x)
        return keras.Model(inputs, keras.layers.Dense(images.num_classes, name="only")(x))

    config = SearchConfig().replace(**{**tiny, "optimizer": kind.optimizer, "epochs": 1})
    space = kind(config, dataset, build_fn=one_layer)
    hp = keras_tuner.HyperParameters()
    space.declare_hyperparameters(hp)
    model = space.build(hp)
    assert model.layers[-1].name == "only"
    assert len(space.fit(hp, model).history["val_accuracy"]) == 1


def test_trials_train_on_the_weights_that_are_left(dataset, tiny, tmp_path, capsys):
    changes = {"optimizer": "beta_lasso", "connectivity": "dense", "epochs": 1}
    config = SearchConfig().replace(**{**tiny, **changes, "certified_sparsity": True})
    space = BetaLassoHyperModel(config, dataset)
    hp = keras_tuner.HyperParameters()
    space.declare_hyperparameters(hp)
    folder = RunFolder(tmp_path)
    space.fit(hp, space.build(hp), folder=folder)
    rows = (tmp_path / "certified_sparsity.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [["1", n] for n in ("conv1", "fc1", "fc2")]
    assert capsys.readouterr().out == ""


def test_hypermodels_refuse_what_they_do_not_search(dataset, tiny):
    import dataclasses

    with pytest.raises(ConfigError, match="optimizer='sgd'"):
        SGDHyperModel(SearchConfig().replace(**{**tiny, "optimizer": "beta_lasso"}), dataset)
    empty = dataclasses.replace(dataset, x_validation=dataset.x_test, y_validation=dataset.y_test)
    with pytest.raises(ConfigError, match="needs validation images"):
        SGDHyperModel(SearchConfig().replace(**tiny), empty)
