"""The points of Figure 5 under the paper's protocol: their grids, and where their settings go."""

import json

import numpy as np
import pytest

from tfconvbias import studies, training
from tfconvbias.studies.neyshabur2020 import PROTOCOL, protocol_report
from tfconvbias.studies.neyshabur2020.chosen_settings import write_settings
from tfconvbias.studies.neyshabur2020.protocol_grids import Setting, initial_deviation

ROWS = ("ResNet18 3×3", "ResNet18 3×3 β-LASSO")


def test_a_point_has_the_papers_settings_without_dropout():
    protocol = PROTOCOL.replace(rows=("resnet18-3x3", "resnet18-3x3-beta-lasso"))
    assert protocol.table.rows == ROWS
    for row in ROWS:
        settings = protocol.grid(row).settings()
        assert len(settings) == 10
        assert {setting.values["dropout_rate"] for setting in settings} == {0.0}
    with pytest.raises(training.ConfigError, match=r"S-FC 20, ResNet18 3×3 10"):
        PROTOCOL.replace(rows=("S-FC", "ResNet18 3×3"))


@pytest.mark.parametrize("size", [3, 5])
def test_a_cutoff_is_a_share_of_the_smallest_initial_weights(size, tiny_dataset):
    config = PROTOCOL.table.row(f"ResNet18 {size}×{size} β-LASSO", "tiny").replace(base_channels=2)
    found = Setting({"pull": 0.3, "cutoff": 0.2, "dropout_rate": 0.0}).apply(config, tiny_dataset)
    model = training.build_model(found, tiny_dataset)
    kernels = {
        v.path: np.asarray(v).std()
        for v in model.trainable_variables
        if "conv" in v.path and v.path.endswith("kernel")
    }
    smallest = min(kernels, key=kernels.__getitem__)
    assert smallest.startswith("stage4")
    assert found.beta * found.l1_conv == pytest.approx(0.2 * kernels[smallest], rel=0.05)
    with pytest.raises(training.ConfigError, match="and ResNet18"):
        initial_deviation(config.replace(connectivity="local"), (8, 8, 3))


def test_settings_of_each_kernel_size_reach_the_figure(tmp_path):
    file = tmp_path / "settings.json"
    for number, row in enumerate(("ResNet18 3×3", "ResNet18 5×5")):
        config = PROTOCOL.table.row(row, "cifar10")
        write_settings(file, config, {"momentum": 0.1 * number})
    assert set(json.loads(file.read_text())["cifar10"]["400"]) == {
        "RESNET18-CONV 3×3, SGD",
        "RESNET18-CONV 5×5, SGD",
    }
    study = studies.neyshabur2020.KernelSizeStudy(kernel_sizes=(3, 5)).replace(settings=str(file))
    with pytest.raises(training.ConfigError, match="none for 3×3 kernels, β-LASSO"):
        study.runs()
    content = json.loads(file.read_text())
    for size in (3, 5):
        content["cifar10"]["400"][f"{size}×{size} kernels, β-LASSO"] = {"l1": size / 1e6}
    file.write_text(json.dumps(content))
    found = [config for _, config in study.runs().values()]
    chosen = {(c.kernel_size, c.optimizer): (c.momentum, c.l1) for c in found}
    plain = study.run
    assert chosen == {
        (3, "sgd"): (0.0, plain.l1),
        (5, "sgd"): (0.1, plain.l1),
        (3, "beta_lasso"): (plain.momentum, 3 / 1e6),
        (5, "beta_lasso"): (plain.momentum, 5 / 1e6),
    }
    content["cifar10"]["400"]["3×3 kernels, SGD"] = {"kernel_size": 7}
    file.write_text(json.dumps(content))
    with pytest.raises(training.ConfigError, match=r"kernel_size=7, but the row's own is 3"):
        study.runs()


def test_accuracies_of_the_last_length_by_kernel_size(tmp_path):
    def outcome(row, epochs, accuracy):
        folder = training.RunFolder(tmp_path / training.slug(f"{row} {epochs}"))
        folder.path.mkdir()
        training.write_json(
            folder.path / "config.json", vars(PROTOCOL.table.row(row, "cifar10").replace())
        )
        tests = [training.RunResult(folder, {"test_accuracy": accuracy}, {})]
        trial = studies.neyshabur2020.Trial(Setting({"momentum": 0.0}), 0.5)
        return studies.neyshabur2020.Outcome(row, "cifar10", epochs, [trial], trial, {}, tests, [])

    found = [
        outcome("ResNet18 3×3", 10, 0.1),
        outcome("ResNet18 3×3", 20, 0.5),
        outcome("ResNet18 5×5", 20, 0.25),
        outcome("ResNet18 5×5 β-LASSO", 20, 0.75),
        outcome("S-FC", 20, 0.9),
    ]
    assert protocol_report._by_kernel_size(found) == {
        "SGD": {3: [50.0], 5: [25.0]},
        "β-LASSO": {5: [75.0]},
    }
    (gap,) = protocol_report._gaps(found)
    assert gap[0] == "ResNet18 5×5 β-LASSO − ResNet18 5×5"
    assert gap[3] == pytest.approx(50.0)
