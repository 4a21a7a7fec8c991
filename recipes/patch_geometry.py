"""Why patches of natural images are hard to memorise: few directions, deep points.

    python recipes/patch_geometry.py --images FOLDER    images of any size, with subfolders
    python recipes/patch_geometry.py --images FOLDER --normalize none unit contrast   all 12 rows
    python recipes/patch_geometry.py --demo             one photo, offline, under a minute

"The Inductive Bias of CNNs: Locality and Weight Sharing Reshape Implicit Regularization",
arXiv 2603.04807. 4×4×3 patches at stride 2 against sets of 16 pixels from anywhere in the image
("random"), patches after one fixed shuffle of all values, whole images, and a sphere of the same
dimension. "elbow" is the number of principal components with
90 % of the variance. "mean depth" is ∫₀^½ P(depth ≥ t) dt, with the depth over 512 random
directions: an upper bound on Tukey's depth that largely tracks the effective rank, so that points
of unit norm are measured beside the raw ones. The same command with --resume continues a stopped
one, or adds clouds of another --normalize.

Target on CIFAR-10, raw: patches 4 / .036, shuffled 41 / .011, images 100 / .006, sphere .001.
"""

from tfconvbias import studies, training

CONFIG = studies.edge_of_stability.PatchGeometryConfig()

DEMO = {"images": "photo", "sphere_points": 20_000, "run_dir": "runs/patch-geometry-demo"}

if __name__ == "__main__":
    training.main(
        CONFIG, studies.edge_of_stability.report_patch_geometry, description=__doc__, demo=DEMO
    )
