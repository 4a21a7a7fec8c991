"""Geometry of natural image patches against shuffled pixels, whole images and spheres."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfconvbias.training.claimed_folder import write_json
from tfconvbias.training.stability_sweep import Check

from tfconvbias import analysis, data, plots
from tfconvbias.training.environment import environment
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.run_config import option

NORMALIZATIONS: tuple[analysis.Normalization, ...] = ("none", "unit", "contrast")
PHOTO = "photo"
KINDS: tuple[analysis.Kind, ...] = ("patches", "shuffled", "images")


@dataclasses.dataclass(frozen=True)
class PatchGeometryConfig:
    """What the recipe's command line sets; the fields' help stands in their metadata."""

    images: str = option(PHOTO, f"folder of images, or {PHOTO}: one that matplotlib ships")
    max_images: int | None = option(10_000, "image files used, drawn at random; none: all")
    tile: int = option(32, "images are cut into tiles of this side")
    patch_size: int = option(4, "side of a patch")
    strides: int = option(2, "step between patches")
    normalize: tuple[str, ...] = option(("none", "unit"), f"some of {', '.join(NORMALIZATIONS)}")
    num_directions: int = option(512, "random directions for the depth")
    sphere_points: int = option(100_000, "points on the sphere of the patches' dimension")
    seed: int = option(0, "seed of directions, shuffle and sphere")
    run_dir: str = option("runs/patch-geometry", "folder of result and figures")

    def __post_init__(self):
        if not self.normalize or set(self.normalize) - set(NORMALIZATIONS):
            raise ConfigError(
                f"`normalize` must be some of {', '.join(NORMALIZATIONS)}. "
                f"Received: normalize={self.normalize}"
            )
        if self.sphere_points < 1 or self.num_directions < 1:
            raise ConfigError(
                "`sphere_points` and `num_directions` must be at least 1. Received: "
                f"sphere_points={self.sphere_points}, num_directions={self.num_directions}"
            )


def photo_path() -> Path:
    """A photo that is on disk with every installation of matplotlib."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


def run_patch_geometry(
    config: PatchGeometryConfig,
) -> tuple[dict[str, analysis.PointGeometry], list[Check]]:
    """Measure all clouds, print and store the table, the criteria and the figures.

    Returns:
        Label → geometry, and the criteria as they fell.
    """
    source = photo_path() if config.images == PHOTO else Path(config.images)
    try:
        images = analysis.ImageTiles(
            source, config.tile, max_images=config.max_images, seed=config.seed
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    options = {"num_directions": config.num_directions, "seed": config.seed}
    found: dict[str, analysis.PointGeometry] = {}

    def measure(name, points):
        cloud = found[name] = analysis.point_geometry(points, **options)
        print(
            f"{name}: {cloud.num_points} points in {cloud.dimension} dimensions, "
            f"elbow {cloud.elbow}, effective rank {cloud.effective_rank:.1f}, "
            f"mean depth {cloud.mean_depth:.4f}",
            flush=True,
        )

    chosen = [name for name in NORMALIZATIONS if name in config.normalize]
    for normalize in chosen:
        for kind in KINDS:
            points = analysis.ImagePoints(
                images,
                kind,
                patch_size=config.patch_size,
                strides=config.strides,
                normalize=normalize,
                seed=config.seed,
            )
            measure(_label(kind, normalize), points)
    sphere = data.uniform_sphere(config.sphere_points, 3 * config.patch_size**2, seed=config.seed)
    measure("sphere", sphere)
    checks = check_geometry(found) if "none" in config.normalize else []
    if checks:
        print("Criteria, which are meant for 4 × 4 patches of CIFAR-10:")
    for check in checks:
        verdict = "pass" if check.passed else "FAIL"
        print(f"{verdict}  {check.name}: {check.value:.3g}, wanted {check.wanted}")
    _store(config, found, checks)
    return found, checks


def check_geometry(found: Mapping[str, analysis.PointGeometry]) -> list[Check]:
    """The criteria on raw 4 × 4 × 3 patches, which are meant for CIFAR-10."""
    patches, shuffled, images = (found[_label(kind, "none")] for kind in KINDS)
    sphere = found["sphere"].mean_depth
    by_shuffled = patches.mean_depth / shuffled.mean_depth
    by_images = patches.mean_depth / images.mean_depth
    return [
        Check("elbow, patches", patches.elbow, "≤ 6", patches.elbow <= 6),
        Check("elbow, shuffled", shuffled.elbow, "≥ 35", shuffled.elbow >= 35),
        Check("mean depth, patches / shuffled", by_shuffled, "≥ 2.5", by_shuffled >= 2.5),
        Check("mean depth, patches / images", by_images, "≥ 3", by_images >= 3),
        Check("mean depth, sphere", sphere, "< 0.003", sphere < 0.003),
    ]


def _label(kind: str, normalize: str) -> str:
    return kind if normalize == "none" else f"{kind}, {normalize}"


def _store(config, found, checks) -> None:
    folder = Path(config.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    clouds: dict[str, Any] = {}
    for name, cloud in found.items():
        fields = dataclasses.asdict(cloud)
        clouds[name] = {
            key: value.tolist() if hasattr(value, "tolist") else value
            for key, value in fields.items()
        }
    result = {
        "config": dataclasses.asdict(config),
        "clouds": clouds,
        "checks": [check._asdict() for check in checks],
        "environment": environment(),
    }
    write_json(folder / "result.json", result)
    for normalize in config.normalize:
        names = [_label(kind, normalize) for kind in KINDS] + ["sphere"]
        figure = plots.depth_and_spectrum({name: found[name] for name in names})
        suffix = "" if normalize == "none" else f"-{normalize}"
        figure.savefig(folder / f"depth{suffix}.png", dpi=110)
    print(f"Results and figures: {folder}")
