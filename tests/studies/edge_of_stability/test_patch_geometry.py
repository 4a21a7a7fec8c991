import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfconvbias import analysis, training
from tfconvbias.studies.edge_of_stability import (
    PatchGeometryConfig,
    check_geometry,
    report_patch_geometry,
    run_patch_geometry,
)
from tfconvbias.studies.edge_of_stability.patch_geometry import photo_path


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for index in range(6):
        pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 48)).save(tmp_path / "images" / f"{index}.png")
    return PatchGeometryConfig(
        images=str(tmp_path / "images"), tile=16, num_directions=16, sphere_points=500,
        run_dir=str(tmp_path / "run"), verbose="line",
    )  # fmt: skip


def test_a_folder_gives_clouds_criteria_and_figures(config, tmp_path, capsys):
    report_patch_geometry(config)
    out = capsys.readouterr().out
    found = run_patch_geometry(config.replace(resume=True, verbose="silent"))
    assert found["patches"].num_points == 6 * 9 * 49
    assert found["images"].dimension == 768
    assert found["sphere"].dimension == 48
    assert found["patches"].elbow < found["random"].elbow <= found["random"].dimension == 48
    assert found["patches"].elbow < found["shuffled"].elbow
    checks = check_geometry(found)
    assert len(checks) == 5
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["clouds"]["patches"]["elbow"] == found["patches"].elbow
    assert len(result["checks"]) == 5
    figures = {f.name for f in (tmp_path / "run" / "figures").iterdir()}
    assert figures == {f"{n}.{s}" for n in ("depth", "depth-unit") for s in ("png", "pdf", "svg")}
    assert "patches, unit: " in out
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 2
    for name, cloud in found.items():
        depth = f"{cloud.mean_depth:.4f}"
        assert f"<td>{name}</td><td>{cloud.num_points:,}</td>" in page
        assert f"<td>{depth}</td>" in page
        (line,) = (line for line in out.splitlines() if line.startswith(f"| {name} "))
        assert depth in line
    for check in checks:
        assert f"<td>{check.name}</td>" in page
    assert "6 image file(s)" in page


def test_a_stopped_measurement_continues_and_takes_other_clouds(config, tmp_path, monkeypatch):
    config = config.replace(normalize=("none",))
    measured = []
    geometry = analysis.point_geometry

    def killed(points, **options):
        if len(measured) == 2:
            raise InterruptedError
        measured.append(points)
        return geometry(points, **options)

    monkeypatch.setattr(analysis, "point_geometry", killed)
    with pytest.raises(InterruptedError):
        run_patch_geometry(config)
    with pytest.raises(training.RunPausedError, match="shuffled is still to run"):
        run_patch_geometry(config.replace(resume=True, max_minutes=1e-9))

    def counted(points, **options):
        measured.append(points)
        return geometry(points, **options)

    monkeypatch.setattr(analysis, "point_geometry", counted)
    # The files may lie elsewhere.
    shutil.move(tmp_path / "images", tmp_path / "moved")
    moved = config.replace(resume=True, images=str(tmp_path / "moved"))
    found = run_patch_geometry(moved)
    assert len(measured) == 5
    whole = run_patch_geometry(moved.replace(run_dir=str(tmp_path / "whole")))
    assert found.keys() == whole.keys()
    for name, cloud in found.items():
        assert cloud.mean_depth == whole[name].mean_depth
        np.testing.assert_array_equal(cloud.spectrum, whole[name].spectrum)
    del measured[:]
    more = run_patch_geometry(moved.replace(normalize=("contrast",)))
    kinds = ("patches", "random", "shuffled", "images")
    assert list(more) == [*(f"{kind}, contrast" for kind in kinds), "sphere"]
    assert len(measured) == 4
    assert check_geometry(more) == []


def test_other_files_or_settings_are_another_configuration(config, tmp_path, monkeypatch):
    monkeypatch.setattr(analysis, "point_geometry", None)
    with pytest.raises(TypeError):
        run_patch_geometry(config)
    config = config.replace(resume=True)
    with pytest.raises(training.RunFolderError, match="tile: 16 there, 8 asked for"):
        run_patch_geometry(config.replace(tile=8))
    Image.new("RGB", (48, 48)).save(tmp_path / "images" / "0.png")
    with pytest.raises(training.RunFolderError, match=r"images: '6 image file.s. [0-9a-f]+' there"):
        run_patch_geometry(config)


def test_the_photo_is_there_offline():
    with Image.open(photo_path()) as photo:
        assert min(photo.size) >= 256


def test_bad_values_are_refused():
    with pytest.raises(training.ConfigError, match="normalize=\\('norm',\\)"):
        PatchGeometryConfig(normalize=("norm",))
    with pytest.raises(training.ConfigError, match="num_directions=0"):
        PatchGeometryConfig(num_directions=0)
    with pytest.raises(training.ConfigError, match="patch_size=9, tile=8"):
        PatchGeometryConfig(patch_size=9, tile=8)


def test_bad_images_are_refused_and_leave_no_folder(config, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(training.ConfigError, match="must hold image files"):
        run_patch_geometry(config.replace(images=str(tmp_path / "empty")))
    with pytest.raises(training.ConfigError, match=r"at least 64 × 64.*0.png of 48 × 48"):
        run_patch_geometry(config.replace(tile=64))
    (tmp_path / "images" / "0.png").write_text("no image")
    with pytest.raises(training.ConfigError, match=r"0.png cannot be read"):
        run_patch_geometry(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_cifar_meets_the_criteria(tmp_path):
    folder = os.environ.get("TFCONVBIAS_CIFAR10_IMAGES")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs CIFAR-10 as image files in TFCONVBIAS_CIFAR10_IMAGES")
    found = run_patch_geometry(
        PatchGeometryConfig(images=folder, normalize=("none",), run_dir=str(tmp_path))
    )
    assert [check for check in check_geometry(found) if not check.passed] == []
