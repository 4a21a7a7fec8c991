"""Which layers vanish: a residual network and a plain one on the same path of α.

    python recipes/structured_sparsity_depth.py                   CIFAR-10 (GPU, a day)
    python recipes/structured_sparsity_depth.py --dataset FOLDER --num-train 10000 --epochs 20
    python recipes/structured_sparsity_depth.py --demo            embedded data, offline

"Optimal Convolutional Architectures Via Structured Sparsity Regularizers" (draft), depth. Of a
residual network a pair of convolutions goes whole once either is dead, since the shortcut goes
round it. A plain network would fall apart: it keeps the largest kernel of a dead layer, with a
warning, or may learn to hand channels on unchanged (identity kernels, eq. 24), which are counted.

Target: the draft has no figures; layers vanish from the residual network alone. A killed run
continues with --resume.
"""

from tfconvbias import training

CONFIG = training.SparsityConfig(
    alphas=(0.0015, 0.0025, 0.004),
    run_dir="runs/structured-sparsity-depth",
)

DEMO = {
    "dataset": "motifs10",
    "width": 0.5,
    "num_train": 2000,
    "num_test": 500,
    "augment": "none",
    "batch_size": 100,
    "epochs": 5,
    "sparse_epochs": 4,
    "fine_tune_epochs": 2,
    "alphas": (0.3, 0.5, 0.8),
    "latency_batch": 64,
    "run_dir": "runs/structured-sparsity-depth-demo",
}

if __name__ == "__main__":
    training.experiment_recipe(
        CONFIG,
        training.report_sparsity_depth,
        description=__doc__,
        demo=DEMO,
        fixed=("residual", "uniform_widths", "random_widths", "baseline_epochs"),
    )
