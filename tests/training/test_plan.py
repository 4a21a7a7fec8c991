"""What runs would take: counted by hand, and printed instead of running."""

import json

import keras
import pytest

from tfconvbias import memory, models, studies, training

S_FC = training.RunConfig(connectivity="dense", base_channels=230, batch_size=512)


def test_s_fc_at_230_is_counted_without_making_its_weights(monkeypatch):
    monkeypatch.setattr(
        keras.initializers.VarianceScaling, "__call__", lambda *_, **__: pytest.fail("made")
    )
    cost = training.step_cost(S_FC, (32, 32, 3), 10)
    inputs, first, hidden = 3 * 32 * 32, 16 * 16 * 230, 24 * 230
    products = [inputs * first, first * hidden, hidden * 10]
    trained = sum(products) + 2 * first + 2 * hidden + 10
    moving = 2 * first + 2 * hidden
    assert cost.parameters == trained + moving
    assert cost.flop == 512 * (4 * products[0] + 6 * sum(products[1:]))
    # A weight and its gradient, four bytes each.
    assert cost.state == 8 * trained


def test_a_network_larger_than_this_machine_is_counted(monkeypatch):
    monkeypatch.setattr(memory, "_main_memory", lambda: 1000)
    with pytest.raises(MemoryError):
        models.SConv(1)
    assert training.step_cost(S_FC, (32, 32, 3), 10).parameters > 2**28
    assert memory.available_bytes() == 1000


@pytest.mark.parametrize(
    ("connectivity", "kernel"), [("conv", 9 * 9 * 3 * 4 * 256), ("local", 9 * 9 * 3 * 4 * 256)]
)
def test_every_position_of_a_convolution_counts(connectivity, kernel):
    config = training.RunConfig(connectivity=connectivity, base_channels=4, batch_size=1)
    rest = 256 * 4 * 96 + 96 * 10
    assert training.step_cost(config, (32, 32, 3), 10).flop == 4 * kernel + 6 * rest


@pytest.mark.parametrize(("precision", "width"), [("float32", 4), ("mixed_bfloat16", 2)])
def test_bytes_of_a_step(precision, width):
    config = training.RunConfig(
        connectivity="conv", base_channels=4, batch_size=8, momentum=0.9, precision=precision
    )
    cost = training.step_cost(config, (32, 32, 3), 10)
    weights = 9 * 9 * 3 * 4 + 2 * 4 + 1024 * 96 + 2 * 96 + 96 * 10 + 10
    # Normalized pixels; convolution, BatchNorm, ReLU, Flatten; dense, BatchNorm, ReLU; logits.
    units = 3072 + 4 * 1024 + 3 * 96 + 10
    assert cost.activations == 8 * units * width
    # Read forward and backward; gradient read, weight and momentum read and written in float32.
    assert cost.moved == 2 * width * weights + 5 * 4 * weights + 2 * cost.activations
    # Weight, gradient and momentum, and a copy where half the width computes.
    assert cost.state == (12 + 2 * (width == 2)) * weights


def test_time_and_memory_follow_from_the_device(tiny_dataset):
    device = training.Accelerator(half=4e12, single=2e12, bandwidth=1e12, memory=1e9)
    cost = training.StepCost(1, flop=8 * 10**12, moved=10**12, state=600, activations=80, layers=3)
    assert cost.bound_seconds(device, is_half=False) == pytest.approx(5)
    assert cost.bound_seconds(device, is_half=True) == pytest.approx(3)

    def planned(overhead=0.0, **changes):
        config = S_FC.replace(epochs=3, **changes)
        return training.plan_run(config, (32, 32, 3), 10, 2000, device, 0.5, overhead)

    one, four, cut = (
        planned(),
        planned(strategy="mirrored", num_devices=4),
        planned(strategy="model_parallel", num_devices=4),
    )
    assert one.steps == 9
    assert one.seconds == pytest.approx(9 * one.cost.bound_seconds(device, False) / 0.5)
    assert four.seconds == pytest.approx(one.seconds / 4)
    layers = len(training.build_model(S_FC.replace(base_channels=1), tiny_dataset).layers)
    assert planned(overhead=2.0).seconds - one.seconds == pytest.approx(9 * 2.0 * layers)
    assert one.memory - four.memory == pytest.approx(0.75 * one.cost.activations, abs=1)
    assert one.memory - cut.memory == pytest.approx(0.75 * one.cost.state, abs=1)


def test_a_study_prints_its_plan_and_leaves_no_folder(tmp_path, capsys):
    def row(bound, seconds):
        return {"bound_seconds": bound, "layers": 10, "step_seconds": seconds}

    file = tmp_path / "real_scale.json"
    # A line through them has a negative slope, so that the median of .2 and .4 counts.
    file.write_text(json.dumps({"rows": [row(0.4, 2.0), row(0.5, 1.25), {}]}))
    study = studies.neyshabur2020.TABLE_1.replace(
        datasets=("motifs10",),
        rows=("s-conv", "s-fc"),
        epochs=2,
        run_dir=str(tmp_path / "run"),
        plan="a100",
        plan_efficiency=str(file),
    )
    studies.report_study(study)
    shown = capsys.readouterr().out
    assert "S-CONV, motifs10, seed 0" in shown
    assert "of training steps on a100" in shown
    assert "Efficiency 0.30 (measured, real_scale.json)" in shown
    assert not (tmp_path / "run").exists()
    with pytest.raises(training.ConfigError, match="plan must be one of here, v100"):
        studies.report_study(study.replace(plan="abacus"))
    file.write_text("{}")
    with pytest.raises(training.ConfigError, match="holds no measured bounds"):
        studies.report_study(study)


def test_efficiency_and_overhead_of_a_layer_are_recovered_from_measured_steps():
    bounds, layers = [0.001, 0.02, 0.004], [60, 10, 30]
    seconds = [0.0015 * count + bound / 0.25 for bound, count in zip(bounds, layers, strict=True)]
    efficiency, overhead = training.efficiency_of(bounds, layers, seconds)
    assert efficiency == pytest.approx(0.25)
    assert overhead == pytest.approx(0.0015)


def test_networks_that_differ_in_one_number_only_have_no_overhead():
    assert training.efficiency_of([0.01, 0.02], [10, 20], [0.02, 0.04]) == (0.5, 0.0)
