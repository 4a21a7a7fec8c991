"""Geometry of image patches against random pixels, shuffled ones, whole images and spheres."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfconvbias import training
from tfconvbias.arguments import checked
from tfconvbias.lazy import analysis, data, plots
from tfconvbias.studies.check import Check, check_rows
from tfconvbias.studies.edge_of_stability.report import criteria_findings, show
from tfconvbias.studies.edge_of_stability.stored_rows import Row, claimed, stored_row

NORMALIZATIONS: tuple[analysis.Normalization, ...] = ("none", "unit", "contrast")
PHOTO = "photo"
KINDS: tuple[analysis.Kind, ...] = ("patches", "random", "shuffled", "images")
_CRITERIA_KINDS = ("patches", "shuffled", "images")
_CRITERIA = "Criteria, which are meant for 4 × 4 patches of CIFAR-10"

Clouds = dict[str, "analysis.PointGeometry"]
"""Label → geometry of a cloud of points."""


@dataclass(frozen=True)
class PatchGeometryConfig(training.Kept):
    """Which points are measured, and how.

    The folder belongs to one way of measuring and to the image files themselves, wherever they
    lie. `normalize` only selects clouds: with `resume`, other ones can be added to a folder.

    Raises:
        ConfigError: If a value is out of its range.
    """

    images: str = training.option(
        PHOTO, f"folder of images, or {PHOTO}: one that matplotlib ships", decides=False
    )
    max_images: int | None = training.option(10_000, "image files used, drawn at random; none: all")
    tile: int = training.option(32, "images are cut into tiles of this side")
    patch_size: int = training.option(4, "side of a patch")
    strides: int = training.option(2, "step between patches")
    normalize: tuple[str, ...] = training.option(
        ("none", "unit"), f"some of {', '.join(NORMALIZATIONS)}", decides=False
    )
    num_directions: int = training.option(512, "random directions for the depth")
    sphere_points: int = training.option(100_000, "points on the sphere of the patches' dimension")
    seed: int = training.option(0, "seed of files, directions, shuffle and sphere")
    run_dir: str = training.option(
        "runs/patch-geometry", "folder of result, figures and report", decides=False
    )

    def __post_init__(self):
        super().__post_init__()
        self._positive("tile", "patch_size", "strides", "num_directions", "sphere_points")
        self._positive("max_images", optional=True)
        self._seeds("seed")
        self._distinct("normalize")
        if set(self.normalize) - set(NORMALIZATIONS):
            raise training.ConfigError(
                f"normalize must be some of {', '.join(NORMALIZATIONS)}. "
                f"Received: normalize={self.normalize}"
            )
        if self.patch_size > self.tile:
            raise training.ConfigError(
                "patch_size must not be larger than tile. "
                f"Received: patch_size={self.patch_size}, tile={self.tile}"
            )

    @property
    def normalizations(self) -> list[analysis.Normalization]:
        """The chosen normalizations, in their usual order."""
        return [name for name in NORMALIZATIONS if name in self.normalize]


def photo_path() -> Path:
    """A photo that is on disk with every installation of matplotlib."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


@checked
def report_patch_geometry(config: PatchGeometryConfig) -> None:
    """Measure all clouds, print their table and the criteria, and write the page."""
    found = run_patch_geometry(config)
    criteria = check_rows(check_geometry(found))
    tables = {"Clouds of points": _table(found), _CRITERIA: criteria}
    figures: training.Figures = {}
    for normalize in config.normalizations:
        names = [*(_label(kind, normalize) for kind in KINDS), "sphere"]
        raw = normalize == "none"
        figures["depth" if raw else f"depth {normalize}"] = (
            "Share of the points that are deeper than t, and share of the variance in the first "
            f"principal components: {'raw points' if raw else f'normalization {normalize!r}'}.",
            plots.depth_and_spectrum({name: found[name] for name in names}),
        )
    folder = training.RunFolder(config.run_dir)
    notes = [
        "The elbow is the number of principal components with 90 % of the variance.",
        "The depth over random directions is an upper bound on Tukey's depth, and largely tracks "
        "the effective rank.",
        f"Images: {folder.config()['images']}.",
        f"Measured on {training.environment_note(folder.environment())}.",
    ]
    deepest = max(found, key=lambda name: found[name].mean_depth)
    findings = [
        f"The deepest points on average: {deepest}, {found[deepest].mean_depth:.4f}; points drawn "
        f"uniformly from a sphere have {found['sphere'].mean_depth:.4f}.",
        *(criteria_findings(criteria) if criteria else ()),
    ]
    show("Geometry of image patches", config, tables, figures, notes, findings)


@checked
def run_patch_geometry(config: PatchGeometryConfig) -> Clouds:
    """Measure the clouds that are not in the run folder yet, and store the result.

    Returns:
        Label → geometry.

    Raises:
        ConfigError: If the images cannot be read, or one is smaller than a tile.
        RunFolderError: If the folder holds something else, holds this measurement while `resume`
            is off, or cannot be written.
        RunPausedError: If `max_minutes` are over before the last cloud.
    """
    deadline = config.deadline()
    source = photo_path() if config.images == PHOTO else Path(config.images)
    try:
        images = analysis.ImageTiles(
            source, config.tile, max_images=config.max_images, seed=config.seed
        )
    except ValueError as error:
        raise training.ConfigError(str(error)) from None
    folder = training.RunFolder(config.run_dir)
    with claimed(folder, config, "measurement", _image_files(images)):
        found: Clouds = {}

        def measure(name, points):
            def make():
                cloud = analysis.point_geometry(
                    points, num_directions=config.num_directions, seed=config.seed
                )
                return _to_row(cloud)

            row = stored_row(folder, training.slug(name), make, deadline)
            cloud = found[name] = _from_row(row)
            config.tell(
                f"{name}: {cloud.num_points} points in {cloud.dimension} dimensions, "
                f"elbow {cloud.elbow}, effective rank {cloud.effective_rank:.1f}, "
                f"mean depth {cloud.mean_depth:.4f}"
            )

        for normalize in config.normalizations:
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
        sphere = data.uniform_sphere(
            config.sphere_points, 3 * config.patch_size**2, seed=config.seed
        )
        measure("sphere", sphere)
        folder.write_result(
            {
                "clouds": {name: _to_row(cloud) for name, cloud in found.items()},
                "checks": [check._asdict() for check in check_geometry(found)],
            }
        )
    return found


@checked
def check_geometry(found: Mapping[str, analysis.PointGeometry]) -> list[Check]:
    """The criteria on raw 4 × 4 × 3 patches of CIFAR-10; none without the raw clouds."""
    if _label("patches", "none") not in found:
        return []
    patches, shuffled, images = (found[_label(kind, "none")] for kind in _CRITERIA_KINDS)
    by_shuffled = patches.mean_depth / shuffled.mean_depth
    by_images = patches.mean_depth / images.mean_depth
    return [
        Check.of("elbow, patches", patches.elbow, "≤", 6),
        Check.of("elbow, shuffled", shuffled.elbow, "≥", 35),
        Check.of("mean depth, patches / shuffled", by_shuffled, "≥", 2.5),
        Check.of("mean depth, patches / images", by_images, "≥", 3),
        Check.of("mean depth, sphere", found["sphere"].mean_depth, "<", 0.003),
    ]


class _ImageFiles(NamedTuple):
    """What tells image files from others, wherever they lie."""

    name: str
    digest: str


def _image_files(images: analysis.ImageTiles) -> _ImageFiles:
    """Look at every file before the first measurement: whether it is an image, and its content."""
    from PIL import Image

    content = hashlib.sha256()
    for file in images.files:
        try:
            with Image.open(file) as image:
                size = image.size
            content.update(hashlib.sha256(file.read_bytes()).digest())
        except OSError as error:
            raise training.ConfigError(f"{file} cannot be read: {error}") from error
        if min(size) < images.size:
            raise training.ConfigError(
                f"Images must be at least {images.size} × {images.size}, the side of a tile. "
                f"Received: {file} of {size[1]} × {size[0]}"
            )
    return _ImageFiles(f"{len(images.files)} image file(s)", content.hexdigest()[:16])


def _label(kind: str, normalize: str) -> str:
    return kind if normalize == "none" else f"{kind}, {normalize}"


def _to_row(cloud: analysis.PointGeometry) -> Row:
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in dataclasses.asdict(cloud).items()
    }


def _from_row(row: Row) -> analysis.PointGeometry:
    arrays = {name: np.array(value) for name, value in row.items() if isinstance(value, list)}
    return analysis.PointGeometry(**{**row, **arrays})


def _table(found: Clouds) -> list[dict[str, str]]:
    return [
        {
            "points": name,
            "number": f"{cloud.num_points:,}",
            "dimension": str(cloud.dimension),
            "elbow": str(cloud.elbow),
            "effective rank": f"{cloud.effective_rank:.1f}",
            "mean depth": f"{cloud.mean_depth:.4f}",
        }
        for name, cloud in found.items()
    ]
