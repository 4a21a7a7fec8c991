import dataclasses
import json

import keras
import numpy as np
import pytest
from hostile import HOSTILE, check_harmless

from tfconvbias import data, models, surgery, training
from tfconvbias.optimizers import Proximal
from tfconvbias.regularizers import Complexity, KernelNumber, KernelSize
from tfconvbias.studies import structured_sparsity
from tfconvbias.studies.structured_sparsity import steps
from tfconvbias.studies.structured_sparsity.report import sparsity_findings, sparsity_table

# Whole sweeps run on TensorFlow alone, where compiling them takes seconds; their steps run
# everywhere.
# The base is replaced by two pairs of convolutions that follow a first one; α is large enough for
# three steps.
TINY = structured_sparsity.SparsityConfig(
    base="cifar20",
    augment="none",
    alphas=(0.0, 14.0),
    fold_normalization=False,
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
        patch.setitem(models.BASES, "cifar20", ((8, 3), (8, 3), (8, 3), (12, 3), (12, 3)))
        patch.setitem(models.BASE_STRIDES, "cifar20", (2, 1, 1, 2, 1))
        yield


@pytest.fixture(scope="module")
def dataset():
    return data.make_motifs(10, num_train=60, num_validation=0, num_test=20)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, dataset):
    config = TINY.replace(run_dir=str(tmp_path_factory.mktemp("sweep") / "run"))
    return structured_sparsity.run_sparsity(config, dataset)


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
        # τ = 0 removes only what is zero, so that nothing changes.
        assert row["test_accuracy_thresholded"] == row["test_accuracy_penalized"]
        assert row["difference"] < 1e-5
        model = keras.saving.load_model(finished.model_file(row["name"]))
        assert model.count_params() == row["parameters"]
        assert surgery.architecture(model).total("multiply_adds") == row["multiply_adds"]
        found = model.evaluate(dataset.x_test, dataset.y_test, verbose=0, return_dict=True)
        assert found["accuracy"] == pytest.approx(row["test_accuracy"], abs=1e-6)


@pytest.mark.tensorflow
def test_a_finished_sweep_is_read_from_disk(finished, dataset):
    with pytest.raises(training.RunFolderError, match="--resume"):
        structured_sparsity.run_sparsity(finished.config, dataset)
    with pytest.raises(training.RunFolderError, match="seed: 0 there, 1 asked for"):
        structured_sparsity.run_sparsity(finished.config.replace(seed=1), dataset)
    again = structured_sparsity.run_sparsity(finished.config.replace(resume=True), dataset)
    assert again.rows == finished.rows
    assert again.histories == finished.histories


@pytest.mark.tensorflow
def test_the_report_shows_every_network(finished):
    page = structured_sparsity.write_sparsity_report(finished).read_text(encoding="utf-8")
    assert "Data set motifs10, 60 training and 20 test images" in page
    figures = {f.stem for f in (finished.folder.path / "figures").iterdir()}
    assert figures >= {"frontier", "path", "snakes", "kernel-sizes", "kernels-base"}
    assert page.count("<img") == len(figures)
    rows = [finished.base | {"dataset": HOSTILE}, *finished.rows[1:]]
    named = dataclasses.replace(finished, rows=rows)
    check_harmless(structured_sparsity.write_sparsity_report(named))
    table = sparsity_table(finished)
    assert [row["network"] for row in table][1:3] == ["α = 0", "α = 14"]
    assert any(
        sentence.startswith(("Within one", "No network"))
        for sentence in sparsity_findings(finished)
    )
    json.dumps(finished.rows)


@pytest.mark.parametrize("residual", [True, False])
def test_random_widths_have_the_multiply_adds_asked_for(dataset, residual):
    config = TINY.replace(width=2.0, residual=residual)
    base = steps.multiply_adds(steps.build_network(config, dataset))
    rng = np.random.default_rng(0)
    layers = steps.random_layers(config, dataset, base // 3, rng)
    network = steps.build_network(config, dataset, layers)
    assert steps.multiply_adds(network) == pytest.approx(base / 3, rel=0.25)
    assert all(1 <= w <= b for (w, _), (b, _) in zip(layers, config.layers, strict=True))
    if residual:
        assert layers[0][0] == layers[2][0]  # one stage, one stream


def test_the_penalty_acts_as_configured(dataset):
    network = steps.build_network(TINY, dataset)
    trained, optimizer = steps.penalized(TINY, dataset, network, 0.5)
    assert trained is network
    assert isinstance(optimizer, Proximal)
    assert isinstance(optimizer.penalty, KernelNumber)
    gradient = TINY.replace(
        method="gradient",
        penalty="multiply_adds",
        fold_normalization=True,
        taus=(0.1,),
        groups="ring",
    )
    trained, optimizer = steps.penalized(gradient, dataset, network, 0.5)
    assert isinstance(trained, Complexity)
    assert (trained.form, trained.fold_normalization, trained.alpha_value()) == (
        "multiply_adds",
        True,
        0.5,
    )
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert isinstance(gradient.group_penalty, KernelSize)
    assert gradient.group_penalty.groups == "ring"


def test_a_plain_network_keeps_the_last_kernel_of_a_layer_with_a_warning(dataset):
    config = TINY.replace(residual=False)
    network = steps.build_network(config, dataset)
    layer = network.get_layer("conv4")
    layer.kernel.assign(0.5 * layer.kernel / keras.ops.max(keras.ops.abs(layer.kernel)) * 1e-3)
    reduced = steps.reduce(config, network, tau=0.05)
    assert any("'conv4'" in message for message in reduced.messages)
    assert reduced.compact.get_layer("conv4").filters == 1
    residual = steps.build_network(config.replace(residual=True), dataset)
    layer = residual.get_layer("conv3")
    layer.kernel.assign(layer.kernel * 1e-3)
    reduced = steps.reduce(config, residual, tau=0.05)
    assert not reduced.messages
    names = {layer.name for layer in reduced.compact.layers}
    assert not names & {"conv2", "conv3"}


def test_a_network_is_reduced_to_what_it_computes(dataset):
    network = steps.build_network(TINY, dataset)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.beta.assign(np.linspace(-0.5, 1.0, layer.beta.shape[0]))
    for name, dead in (("conv1", 3), ("conv2", 6), ("conv5", 12)):
        kernel = keras.ops.convert_to_numpy(network.get_layer(name).kernel).copy()
        kernel[..., :dead] = 0
        network.get_layer(name).kernel.assign(kernel)
    reduced = steps.reduce(TINY, network, tau=0.0)
    assert not reduced.messages
    expected = keras.ops.convert_to_numpy(network(dataset.x_test, training=False))
    for found in (reduced.thresholded, reduced.compact):
        found = keras.ops.convert_to_numpy(found(dataset.x_test, training=False))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert reduced.compact.get_layer("conv2").filters == 2 + 1
    assert "conv5" not in {layer.name for layer in reduced.compact.layers}


def test_only_a_threshold_that_removes_everything_leaves_nothing(dataset, monkeypatch):
    network = steps.build_network(TINY, dataset)
    with pytest.raises(steps.NothingLeftError, match="removes every kernel"):
        steps.reduce(TINY, network, tau=1e9)

    def fails(model):
        raise ValueError("a layer is unknown")

    monkeypatch.setattr(surgery, "compact", fails)
    with pytest.raises(ValueError, match="a layer is unknown") as caught:
        steps.reduce(TINY, network, tau=0.0)
    assert not isinstance(caught.value, steps.NothingLeftError)


@pytest.mark.tensorflow
def test_a_penalty_that_removes_everything_ends_the_path(tmp_path, dataset):
    config = TINY.replace(alphas=(1e6,), uniform_widths=(), run_dir=str(tmp_path / "run"))
    result = structured_sparsity.run_sparsity(config, dataset)
    assert [row["kind"] for row in result.rows] == ["base"]
    assert sparsity_findings(result) == [
        "The smallest α has removed every kernel: no network was found."
    ]
    structured_sparsity.write_sparsity_report(result)


@pytest.mark.tensorflow
def test_a_sweep_pauses_goes_on_and_refuses_a_wrong_compact_network(
    finished, tmp_path, dataset, monkeypatch
):
    config = finished.config.replace(run_dir=str(tmp_path / "run"))

    class UntilTheBaseIsDone(training.Deadline):
        def is_over(self, seconds=0.0):
            return (tmp_path / "run" / "base" / "result.json").exists()

    with pytest.raises(training.RunPausedError, match=r"alpha-0 is still to run.*--resume"):
        structured_sparsity.run_sparsity(config, dataset, UntilTheBaseIsDone(5.0))
    history = tmp_path / "run" / "base" / "history.csv"
    assert not (tmp_path / "run" / "alpha-0").exists()
    trained = history.stat().st_mtime_ns

    right = surgery.compact

    def wrong(model):
        smaller = right(model)
        smaller.layers[-1].bias.assign(smaller.layers[-1].bias + 0.01)
        return smaller

    monkeypatch.setattr(surgery, "compact", wrong)
    # An error that a recipe shows as a message, and the sweep can be resumed.
    assert issubclass(structured_sparsity.CompactionError, training.RecipeError)
    with pytest.raises(structured_sparsity.CompactionError, match=r"^alpha-0/tau-0: .*--resume"):
        structured_sparsity.run_sparsity(config.replace(resume=True), dataset)
    assert history.stat().st_mtime_ns == trained
    assert not (tmp_path / "run" / "alpha-0" / "tau-0").exists()
    path = training.RunFolder(tmp_path / "run" / "alpha-0").history()
    for column in ("epoch", "loss", "test_loss", "test_accuracy"):
        expected = finished.histories["alpha-0"][column]
        np.testing.assert_allclose(path[column], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_test": 21}, "20 images. Received: num_test=21"),
        ({"batch_size": 61}, "60 training samples. Received: batch_size=61"),
        ({"augment": "wobble"}, "augment: .*wobble"),
    ],
)
def test_a_sweep_that_can_not_be_run_leaves_no_folder(
    tmp_path, dataset, monkeypatch, changes, message
):
    monkeypatch.setattr(data, "load", lambda *_, **__: dataset)
    config = TINY.replace(run_dir=str(tmp_path / "run"), **changes)
    with pytest.raises(training.ConfigError, match=message):
        structured_sparsity.run_sparsity(config)
    assert not (tmp_path / "run").exists()


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
        ({"momentum": 1.0}, "momentum"),
        ({"sparse_learning_rate": float("nan")}, "sparse_learning_rate"),
    ],
)
def test_bad_values_are_refused(changes, message):
    with pytest.raises(training.ConfigError, match=message):
        TINY.replace(**changes)


def test_findings_weigh_the_baselines(tmp_path):
    def row(name, kind, accuracy, cost, **more):
        return {
            "name": name,
            "kind": kind,
            "test_accuracy": accuracy,
            "multiply_adds": cost,
            "multiply_adds_ratio": cost / 100,
            "latency_ratio": 1.0,
            "alpha": None,
            "tau": 0.0,
            "vanished": [],
            "messages": [],
            "identity_kernels": 0,
            "factor": None,
            **more,
        }

    rows = [
        row("base", "base", 0.95, 100),
        row("dense", "found", 0.96, 70, alpha=0.1),
        row("sparse", "found", 0.90, 20, alpha=0.2),
        row("half", "uniform", 0.97, 25, factor=0.5),
    ]
    folder = training.RunFolder(tmp_path)
    found = structured_sparsity.SparsityResult(TINY, rows, {}, folder)
    (weighed,) = [text for text in sparsity_findings(found) if "at least as accurate" in text]
    # The narrower base beats the first network found; the second is smaller than itself.
    assert weighed.startswith("base, widths × 0.5 is at least as accurate as α = 0.1, with")
    alone = structured_sparsity.SparsityResult(TINY, rows[:3], {}, folder)
    assert any(text.startswith("No baseline was trained") for text in sparsity_findings(alone))
