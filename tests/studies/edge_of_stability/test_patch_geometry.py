import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfconvbias import training


def test_a_folder_gives_clouds_criteria_and_figures(tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = tmp_path / "images"
    images.mkdir()
    for index in range(6):
        pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 48)).save(images / f"{index}.png")
    config = training.PatchGeometryConfig(
        images=str(images), tile=16, num_directions=16, sphere_points=500,
        run_dir=str(tmp_path / "run"),
    )  # fmt: skip
    found, checks = training.run_patch_geometry(config)
    assert found["patches"].num_points == 6 * 9 * 49
    assert found["images"].dimension == 768
    assert found["sphere"].dimension == 48
    assert found["patches"].elbow < found["shuffled"].elbow
    assert len(checks) == 5
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["clouds"]["patches"]["elbow"] == found["patches"].elbow
    assert len(result["checks"]) == 5
    assert {f.name for f in (tmp_path / "run").glob("*.png")} == {"depth.png", "depth-unit.png"}
    assert "patches, unit: " in capsys.readouterr().out


def test_the_photo_is_there_offline():
    from tfconvbias.training.patch_geometry import photo_path

    with Image.open(photo_path()) as photo:
        assert min(photo.size) >= 256


def test_bad_values_are_refused(tmp_path):
    with pytest.raises(training.ConfigError, match="normalize=\\('norm',\\)"):
        training.PatchGeometryConfig(normalize=("norm",))
    with pytest.raises(training.ConfigError, match="num_directions=0"):
        training.PatchGeometryConfig(num_directions=0)
    config = training.PatchGeometryConfig(images=str(tmp_path), run_dir=str(tmp_path / "run"))
    with pytest.raises(training.ConfigError, match="must hold image files"):
        training.run_patch_geometry(config)


@pytest.mark.slow
def test_cifar_meets_the_criteria(tmp_path):
    folder = os.environ.get("TFCONVBIAS_CIFAR10_IMAGES")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs CIFAR-10 as image files in TFCONVBIAS_CIFAR10_IMAGES")
    _, checks = training.run_patch_geometry(
        training.PatchGeometryConfig(images=folder, normalize=("none",), run_dir=str(tmp_path))
    )
    assert [check for check in checks if not check.passed] == []
