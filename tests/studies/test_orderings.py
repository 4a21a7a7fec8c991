"""The order of each paper's networks, on embedded data: trainings of a minute or two each.

Bands are wide: they are what a bug of the kind that these tests are for would leave, not what
another seed would. recipes/README.md has the measured figures.
"""

import keras
import pytest

from tfconvbias import analysis, studies, training

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]


def test_locality_and_sharing_order_the_s_family(tmp_path):
    """Neyshabur 2020, Tables 1 and 2: conv, local, dense; β-LASSO brings the dense one back."""
    rows = {name: studies.neyshabur2020.TABLE_1.definitions[name]
            for name in ("S-CONV", "S-LOCAL", "S-FC")}  # fmt: skip
    rows["β-LASSO"] = {**studies.neyshabur2020.S_FC_BETA_LASSO, "beta": 5.0}
    run = studies.neyshabur2020.TABLE_1.run.replace(
        dataset="motifs10", base_channels=4, augment="none", epochs=12,
        batch_size=128, momentum=0.0, weight_decay=0.0, l1=2e-3, l1_conv=2e-3, verbose="silent",
        tensorboard=False,
    )  # fmt: skip
    found, models = {}, {}
    for number, (name, row) in enumerate(rows.items()):
        result = training.run(run.replace(**row).replace(run_dir=str(tmp_path / str(number))))
        found[name] = result.row["test_accuracy"]
        models[name] = keras.saving.load_model(result.folder.last_model)
    assert found["S-CONV"] > 0.97, found
    assert 0.75 < found["S-LOCAL"] < found["S-CONV"], found
    assert found["S-FC"] < 0.35, found
    assert found["β-LASSO"] > found["S-FC"] + 0.4, found
    left = sum(analysis.num_nonzeros(models["β-LASSO"]).values())
    assert left < 0.02 * models["S-FC"].count_params(), left


def test_an_embedded_network_keeps_what_the_convolutions_found(tmp_path):
    """D'Ascoli et al. 2019, Figure 3: FCN below the eFCN of a late switch, which keeps up."""
    config = studies.dascoli2019.SwitchTimeConfig(
        dataset="motifs10", filters=8, num_train=2000, num_test=1000, epochs=20, batch_size=50,
        learning_rate=0.05, embedded_epochs=5, embedded_learning_rate=0.03, switch_times=(0, 20),
        curvature_samples=0, num_points=0, string_epochs=0, verbose="silent",
        run_dir=str(tmp_path / "run"),
    )  # fmt: skip
    result = studies.dascoli2019.run_switch_time(config)
    cnn = result.histories["cnn"]["test_accuracy"][-1]
    found = {name: row["best_test_accuracy"] for name, row in result.rows.items()}
    assert cnn > 0.7, (cnn, found)
    assert found["tw-20"] > cnn - 0.02, (cnn, found)
    assert found["fcn"] < found["tw-20"] - 0.2, (cnn, found)
    # An embedding of random convolutions is in between.
    assert found["tw-0"] < found["tw-20"], (cnn, found)
    assert result.rows["tw-20"]["off_local"] < 0.2 < result.rows["fcn"]["off_local"]


def test_gaps_on_the_sphere_at_equal_times():
    """arXiv 2603.04807: at the edge of stability and at ηt = 560 conv overfits least."""
    gaps = {}
    for connectivity in ("dense", "local", "conv"):
        row = studies.edge_of_stability.stability_row(
            studies.edge_of_stability.StabilityRun(
                connectivity=connectivity, num_train=256, steps=1500, warmup_steps=200
            )
        )
        assert row["history"]["time"][-1] == pytest.approx(560, abs=1)
        assert 0.8 < row["relative_sharpness"] < 1.2, row["relative_sharpness"]
        gaps[connectivity] = row["gap"]
    assert gaps["conv"] < 0.5 * gaps["local"], gaps
    assert gaps["conv"] < 0.3 * gaps["dense"], gaps


def test_a_thresholded_network_keeps_its_accuracy_at_half_of_the_multiply_adds(tmp_path):
    """The draft on structured sparsity: within two points of the base at no more than a half."""
    config = studies.structured_sparsity.SparsityConfig(
        dataset="motifs10", width=0.5, num_train=2000, num_test=1000, augment="none",
        batch_size=100, epochs=5, sparse_epochs=4, fine_tune_epochs=1, alphas=(0.3, 0.5),
        uniform_widths=(), random_widths=0, verbose="silent", run_dir=str(tmp_path / "run"),
    )  # fmt: skip
    result = studies.structured_sparsity.run_sparsity(config)
    found = result.of_kind("found")[-1]
    # What is zero is removed exactly, so that the function stays.
    assert found["test_accuracy_thresholded"] == pytest.approx(
        found["test_accuracy_penalized"], abs=0.005
    )
    assert found["multiply_adds_ratio"] < 0.5, found["multiply_adds_ratio"]
    assert found["test_accuracy"] > result.base["test_accuracy"] - 0.02, (found, result.base)
