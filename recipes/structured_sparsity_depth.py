"""Which layers vanish: a residual network and a plain one on the same path of α.

    python recipes/structured_sparsity_depth.py                   CIFAR-10 (GPU, a day)
    python recipes/structured_sparsity_depth.py --dataset FOLDER --num-train 10000 --epochs 20
    python recipes/structured_sparsity_depth.py --demo            embedded data, offline

"Optimal Convolutional Architectures Via Structured Sparsity Regularizers" (draft), depth. A
residual network loses a pair of convolutions as soon as one of them is dead, since the shortcut
leads around the pair. A plain network would fall apart: it keeps the largest kernel of a dead
layer, with a warning, or it may learn to hand channels on unchanged (identity kernels, eq. 24),
which are counted.

Target: the draft has no figures; layers vanish from the residual network alone. A killed run
continues with --resume.
"""

from tfconvbias import studies, training

CONFIG = studies.structured_sparsity.DepthConfig().replace(alphas=(0.0015, 0.0025, 0.004))

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
    training.main(
        CONFIG, studies.structured_sparsity.report_sparsity_depth, description=__doc__, demo=DEMO
    )
