import dataclasses
import json

import keras
import numpy as np
import pytest
from tfconvbias.training.sparsity_report import sparsity_findings, sparsity_table

from tfconvbias import data, models, surgery, training
from tfconvbias.optimizers import Proximal
from tfconvbias.regularizers import Complexity, KernelNumber, KernelSize
from tfconvbias.training import sparsity_steps

# Whole sweeps run on TensorFlow alone, where compiling them takes seconds; their steps run
# everywhere.
# Two pairs of convolutions behind the first; α is large enough for three steps.
TINY = training.SparsityConfig(
    base="tiny",
    augment="none",
    alphas=(0.0, 14.0),
    folded=False,
    epochs=1,
    sparse_epochs=1,
    fine_tune_epochs=1,
    weight_decay=0.0,
    batch_size=20,
    uniform_widths=(0.5,),
    random_widths=1,
    latency_batch=8,
    verbose="silent",
)


@pytest.fixture(scope="module", autouse=True)
def _tiny_base():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.BASES, "tiny", ((8, 3), (8, 3), (8, 3), (12, 3), (12, 3)))
        patch.setitem(models.BASE_STRIDES, "tiny", (2, 1, 1, 2, 1))
        yield


@pytest.fixture(scope="module")
def dataset():
    return data.make_motifs(10, num_train=60, num_validation=0, num_test=20)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, dataset):
    config = dataclasses.replace(TINY, run_dir=str(tmp_path_factory.mktemp("sweep") / "run"))
    return training.run_sparsity(config, dataset)


@pytest.mark.tensorflow
def test_the_path_goes_from_dense_to_sparse(finished, dataset):
    names = [row["name"] for row in finished.rows]
    assert names == ["base", "alpha-0/tau-0", "alpha-14/tau-0", "uniform-0.5", "random-1"]
    base, dense, sparse = finished.rows[:3]
    # A baseline sees the images as often as the last network of the path.
    assert finished.histories["uniform-0.5"]["epoch"][-1] == 1 + 2 * 1 + 1
    assert dense["multiply_adds"] == base["multiply_adds"]
    assert sparse["multiply_adds"] < 0.9 * base["multiply_adds"]
    assert sparse["multiply_adds"] <= sparse["theoretical_multiply_adds"] * 9
    live = finished.histories["alpha-14"]["live_kernels"]
    assert live[0] == finished.histories["alpha-0"]["live_kernels"][-1]
    assert live[-1] == sum(
        layer["live_kernels"] for layer in sparse["architecture"] if layer["kind"] != "Dense"
    )
    for row in (dense, sparse):
        # What is fine-tuned starts as the compact network that was thresholded.
        history = finished.histories[row["name"]]
        assert history["test_accuracy"][0] == row["test_accuracy_thresholded"]
        assert row["difference"] < 1e-5
        model = keras.saving.load_model(finished.folder / row["name"] / "model.keras")
        assert model.count_params() == row["parameters"]
        assert surgery.architecture(model).total("multiply_adds") == row["multiply_adds"]
        found = model.evaluate(dataset.x_test, dataset.y_test, verbose=0, return_dict=True)
        assert found["accuracy"] == pytest.approx(row["test_accuracy"], abs=1e-6)


@pytest.mark.tensorflow
def test_a_finished_sweep_is_read_from_disk(finished, dataset):
    with pytest.raises(training.RunFolderError, match="--resume"):
        training.run_sparsity(finished.config, dataset)
    with pytest.raises(training.RunFolderError, match="seed: 0 there, 1 asked for"):
        training.run_sparsity(dataclasses.replace(finished.config, seed=1), dataset)
    again = training.run_sparsity(dataclasses.replace(finished.config, resume=True), dataset)
    assert again.rows == finished.rows
    assert again.histories == finished.histories


@pytest.mark.tensorflow
def test_the_report_shows_every_network(finished):
    page = training.write_sparsity_report(finished).read_text(encoding="utf-8")
    figures = {f.stem for f in (finished.folder / "figures").iterdir()}
    assert figures >= {"frontier", "path", "snakes", "kernel-sizes", "kernels-base"}
    assert page.count("<img") == len(figures)
    table = sparsity_table(finished)
    assert [row["network"] for row in table][1:3] == ["α = 0", "α = 14"]
    assert any(
        sentence.startswith(("Within one", "No network"))
        for sentence in sparsity_findings(finished)
    )
    json.dumps(finished.rows)


@pytest.mark.parametrize("residual", [True, False])
def test_random_widths_have_the_multiply_adds_asked_for(dataset, residual):
    config = dataclasses.replace(TINY, width=2.0, residual=residual)
    base = sparsity_steps.multiply_adds(sparsity_steps.build_network(config, dataset))
    rng = np.random.default_rng(0)
    layers = sparsity_steps.random_layers(config, dataset, base // 3, rng)
    network = sparsity_steps.build_network(config, dataset, layers)
    assert sparsity_steps.multiply_adds(network) == pytest.approx(base / 3, rel=0.25)
    assert all(1 <= w <= b for (w, _), (b, _) in zip(layers, config.layers, strict=True))
    if residual:
        assert layers[0][0] == layers[2][0]  # one stage, one stream


def test_the_penalty_acts_as_configured(dataset):
    network = sparsity_steps.build_network(TINY, dataset)
    trained, optimizer = sparsity_steps.penalized(TINY, dataset, network, 0.5)
    assert trained is network
    assert isinstance(optimizer, Proximal)
    assert isinstance(optimizer.penalty, KernelNumber)
    gradient = dataclasses.replace(
        TINY, method="gradient", penalty="multiply_adds", folded=True, taus=(0.1,), groups="ring"
    )
    trained, optimizer = sparsity_steps.penalized(gradient, dataset, network, 0.5)
    assert isinstance(trained, Complexity)
    assert (trained.form, trained.folded, trained.alpha_value()) == ("multiply_adds", True, 0.5)
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert isinstance(gradient.group_penalty, KernelSize)
    assert gradient.group_penalty.groups == "ring"


def test_a_plain_network_keeps_the_last_kernel_of_a_layer_with_a_warning(dataset):
    config = dataclasses.replace(TINY, residual=False)
    network = sparsity_steps.build_network(config, dataset)
    layer = network.get_layer("conv4")
    layer.kernel.assign(0.5 * layer.kernel / keras.ops.max(keras.ops.abs(layer.kernel)) * 1e-3)
    reduced = sparsity_steps.reduce(config, network, tau=0.05)
    assert any("'conv4'" in message for message in reduced.messages)
    assert reduced.compact.get_layer("conv4").filters == 1
    residual = sparsity_steps.build_network(dataclasses.replace(config, residual=True), dataset)
    layer = residual.get_layer("conv3")
    layer.kernel.assign(layer.kernel * 1e-3)
    reduced = sparsity_steps.reduce(config, residual, tau=0.05)
    assert not reduced.messages
    names = {layer.name for layer in reduced.compact.layers}
    assert not names & {"conv2", "conv3"}


@pytest.mark.tensorflow
def test_a_penalty_that_removes_everything_ends_the_path(tmp_path, dataset):
    config = dataclasses.replace(
        TINY, alphas=(1e6,), uniform_widths=(), run_dir=str(tmp_path / "run")
    )
    result = training.run_sparsity(config, dataset)
    assert [row["kind"] for row in result.rows] == ["base"]
    assert sparsity_findings(result) == [
        "The smallest α has removed every kernel: no network was found."
    ]
    training.write_sparsity_report(result)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "width"),
        ({"alphas": ()}, "alphas"),
        ({"alphas": (-1.0,)}, "alphas"),
        ({"alphas": (0.2, 0.1)}, "must increase"),
        ({"taus": (float("nan"),)}, "taus"),
        ({"uniform_widths": (1.0,)}, "uniform_widths"),
        ({"random_widths": -1}, "random_widths"),
        ({"baseline_epochs": 0}, "baseline_epochs"),
        ({"penalty": "multiply_adds"}, "method='proximal' knows"),
        ({"method": "gradient"}, "no exact zeros"),
    ],
)
def test_bad_values_are_refused(changes, message):
    with pytest.raises(training.ConfigError, match=message):
        dataclasses.replace(TINY, **changes)
