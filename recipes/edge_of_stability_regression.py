"""Regression on images with a convolutional teacher: locality and sharing on overlapping patches.

    python recipes/edge_of_stability_regression.py --dataset FOLDER --strides 2   minutes on a CPU
    python recipes/edge_of_stability_regression.py --dataset cifar10 --num-train 1024
        --dense-width 1024 --local-width 1024 --conv-width 1024 --steps 30000     the paper's size
    python recipes/edge_of_stability_regression.py --demo        embedded data, under two minutes

"The Inductive Bias of CNNs: Locality and Weight Sharing Reshape Implicit Regularization",
arXiv 2603.04807. Two-layer ReLU networks over overlapping 3 × 3 patches of images, and a dense one,
under full-batch gradient descent on the noisy targets of a convolutional teacher of 20 units. The
authors' training error and excess risk at n = K = 1024: dense 0 and .479, conv .887 and .129.
The same command with --resume continues a stopped one; --num-seeds adds seeds.
"""

from tfconvbias import studies, training

CONFIG = studies.edge_of_stability.ImageRegression()

DEMO = {
    "dataset": "motifs10",
    "image_size": 12,
    "num_train": 64,
    "num_test": 100,
    "num_standardize": 200,
    "num_seeds": 1,
    "steps": 300,
    "warmup_steps": 100,
    "measure_every": 50,
    "run_dir": "runs/edge-of-stability-regression-demo",
}

if __name__ == "__main__":
    training.main(
        CONFIG, studies.edge_of_stability.report_image_regression, description=__doc__, demo=DEMO
    )
