import keras
import numpy as np
import pytest

from tfconvbias import data, models, surgery, training
from tfconvbias.studies import structured_sparsity
from tfconvbias.studies.structured_sparsity import (
    comparison,
    comparison_report,
    comparison_trainings,
)
from tfconvbias.studies.structured_sparsity.comparison_config import Setting, pattern_of
from tfconvbias.studies.structured_sparsity.steps import build_network

CONFIG = structured_sparsity.ComparisonConfig(
    methods=("uniform", "proximal"),
    budgets=(0.5, 0.25),
    seeds=(0, 1),
    scratch_learning_rates=(0.1, 0.2),
    fine_tune_learning_rates=(0.05, 0.1),
    alphas=(0.1, 0.3),
    l1s=(1e-4, 2e-4),
).replace(
    augment="none", epochs=1, sparse_epochs=1, fine_tune_epochs=1, batch_size=20, verbose="silent"
)


@pytest.fixture(scope="module", autouse=True)
def _tiny_base():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.BASES, "cifar8", ((8, 3), (8, 3), (12, 3)))
        patch.setitem(models.BASE_STRIDES, "cifar8", (2, 1, 2))
        yield


@pytest.fixture(scope="module")
def dataset():
    return data.make_motifs(10, num_train=40, num_validation=20, num_test=20)


@pytest.fixture(scope="module")
def trainings(dataset):
    return comparison_trainings.SeedTrainings(
        CONFIG, dataset, training.RunFolder("unused"), training.Deadline(None), 0
    )


def cost_by_hand(layers, channels=3, side=32, strides=(2, 1, 2)):
    """Multiply-adds of convolutions with `same` padding, and of the classifier."""
    total = 0
    for (width, size), stride in zip(layers, strides, strict=True):
        side //= stride
        total += side**2 * size**2 * channels * width
        channels = width
    return total + 10 * channels


@pytest.mark.parametrize("budget", [0.5, 0.25])
def test_narrower_bases_use_the_budget(trainings, budget):
    target = budget * cost_by_hand(((8, 3), (8, 3), (12, 3)))
    layers = trainings._narrower(round(target))
    assert 0.85 * target < cost_by_hand(layers) <= target
    assert all(width <= full for (width, _), full in zip(layers, (8, 8, 12), strict=True))


@pytest.mark.parametrize("budget", [0.5, 0.25])
def test_the_threshold_leaves_the_budget(trainings, dataset, budget):
    network = build_network(trainings.sweep, dataset)
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(rng.uniform(0.1, 2.0, layer.gamma.shape))
    smaller = trainings._thresholded(network, budget)
    full = surgery.architecture(network).total("multiply_adds")
    left = surgery.architecture(smaller).total("multiply_adds")
    assert 0.75 * budget * full < left <= budget * full


def test_the_largest_weights_of_all_kernels_are_kept():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    first, second = (layer.kernel for layer in model.layers)
    first.assign([[1.0, -5.0], [0.5, 2.0]])
    second.assign([[-4.0], [0.1]])
    comparison_trainings._keep_largest(model, 0.5)
    np.testing.assert_array_equal(first, [[0, -5], [0, 2]])
    np.testing.assert_array_equal(second, [[-4], [0]])


def test_multiply_adds_with_zeros_do_not_count():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )
    kernel = np.ones((3, 3, 3, 4), "float32")
    kernel[0] = 0
    model.layers[0].kernel.assign(kernel)
    model.layers[2].kernel.assign(np.eye(4, 2))
    assert structured_sparsity.nonzero_multiply_adds(model) == 6 * 6 * 72 + 2


def test_patterns_and_settings():
    assert [pattern_of(b) for b in (0.75, 0.5, 0.25, 0.125, 0.0625)] == [
        (3, 4), (2, 4), (1, 4), (1, 8), (1, 16),
    ]  # fmt: skip
    assert CONFIG.settings("uniform") == (Setting(0.1), Setting(0.2))
    assert CONFIG.settings("proximal") == (Setting(0.05, 0.1), Setting(0.1, 0.3))
    assert CONFIG.replace(budgets=(0.125,)).identity() == CONFIG.identity()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("magic",)}, "methods must be some of"),
        ({"budgets": (1.5,)}, "budgets must lie between 0 and 1"),
        ({"alphas": (0.1,)}, "one strength beside each"),
        ({"scratch_learning_rates": (0.1,)}, "as many settings.*'uniform': 1, 'proximal': 2"),
        ({"methods": ("magnitude",), "device_epochs": "on"}, "held after every step"),
        ({"methods": ("n_m",), "budgets": (0.12,)}, "n_m needs budgets of n/4"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(training.ConfigError, match=message):
        CONFIG.replace(**changes)


# Validation accuracy by method and setting; the better setting is not the first one of both.
VALIDATION = {("uniform", 0.1): 0.3, ("uniform", 0.2): 0.4, ("proximal", 0.05): 0.6}


@pytest.fixture
def finished(monkeypatch, dataset, tmp_path):
    """A comparison whose trainings are replaced by the base and a table of accuracies."""
    calls = []

    def run(self, method, budget, setting, place):
        calls.append((method, budget, self.seed, setting.learning_rate))
        accuracy = VALIDATION.get((method, setting.learning_rate), 0.5) - 0.1 * (budget < 0.5)
        network = build_network(self.sweep, self.dataset, None, "zeros")
        return network, {"val_accuracy": [0.0, accuracy], "accuracy": [0.0, 0.9]}

    monkeypatch.setattr(comparison_trainings.SeedTrainings, "run", run)
    tests = []

    def test(self, row):
        tests.append(row["name"])
        return {"uniform": 0.5, "proximal": 0.53}[row["method"]] + 0.01 * row["seed"]

    monkeypatch.setattr(comparison._Comparison, "_test", test)
    config = CONFIG.replace(run_dir=str(tmp_path / "run"))
    result = structured_sparsity.run_comparison(config, dataset)
    return result, calls, tests


def test_validation_images_choose_and_only_the_chosen_are_tested(finished, dataset):
    result, calls, tests = finished
    assert calls == [
        (method, budget, seed, rate)
        for seed, rates in (
            (0, {"uniform": (0.1, 0.2), "proximal": (0.05, 0.1)}),
            (1, {"uniform": (0.2,), "proximal": (0.05,)}),
        )
        for method in ("uniform", "proximal")
        for budget in (0.5, 0.25)
        for rate in rates[method]
    ]
    assert len(result.tried) == 8 and len(result.chosen) == len(tests) == 8
    assert {row["learning_rate"] for row in result.of("uniform", 0.5)} == {0.2}
    calls.clear()
    again = result.config.replace(resume=True, seeds=(0, 1, 2))
    structured_sparsity.run_comparison(again, dataset)
    assert {seed for _, _, seed, _ in calls} == {2} and len(calls) == 4


def test_the_report_says_whether_the_goal_is_met(finished):
    result, _, _ = finished
    table = structured_sparsity.comparison_table(result)
    assert [(row["method"], row["budget"]) for row in table] == [
        ("uniform widths", "50 %"),
        ("uniform widths", "25 %"),
        ("proximal step", "50 %"),
        ("proximal step", "25 %"),
    ]
    assert table[0]["test, %"] == "50.50 ± 0.71"  # 50 and 51
    assert table[2]["chosen"] == "rate 0.05, strength 0.1"
    sentences = structured_sparsity.comparison_findings(result)
    assert len(sentences) == 2
    assert "+3.00 points beside a network of uniform widths" in sentences[0]
    assert "+3.00, +3.00" in sentences[0] and sentences[0].endswith("is met.")
    page = structured_sparsity.write_comparison_report(result).read_text(encoding="utf-8")
    assert sentences[0] in page and page.count("<img") == 1


@pytest.mark.slow
@pytest.mark.tensorflow
def test_every_method_meets_its_budget(dataset, tmp_path):
    config = CONFIG.replace(
        methods=(
            *("dense", "uniform", "random", "prune_taylor", "proximal"),
            *("magnitude", "n_m", "beta_lasso"),
        ),
        budgets=(0.25,),
        seeds=(0,),
        scratch_learning_rates=(0.1,),
        fine_tune_learning_rates=(0.05,),
        alphas=(0.1,),
        l1s=(1e-3,),
        run_dir=str(tmp_path / "run"),
    )
    result = structured_sparsity.run_comparison(config, dataset)
    rows = {row["method"]: row for row in result.chosen}
    weights = rows["dense"]["nonzeros"]
    for method in ("uniform", "prune_taylor", "proximal"):
        assert 0.1 < rows[method]["multiply_adds_ratio"] <= 0.25
    for method in ("magnitude", "beta_lasso"):
        assert rows[method]["multiply_adds_ratio"] == 1
        assert rows[method]["nonzeros"] == pytest.approx(0.25 * weights, rel=0.02)
    # The first kernel has three input channels and stays whole, the others keep 1 of 4.
    assert rows["n_m"]["nonzeros"] == 216 + (weights - 216) / 4


def test_a_seed_that_was_lost_is_missing_from_the_report(
    finished, tmp_path, monkeypatch, dataset, report_without
):
    result, _, _ = finished
    for name in (comparison, comparison_report):
        monkeypatch.setattr(name, "build_dataset", lambda config: dataset)
    config = result.config.replace(resume=True, seeds=(0, 1, 2), retries=0)
    page = report_without(
        lambda: comparison_report.report_comparison(config), tmp_path / "run", "seed 2"
    )
    assert "50.50 ± 0.71" in page
