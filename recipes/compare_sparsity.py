"""Sparsity methods side by side: single weights, patterns and channels, at equal epochs and tuning.

    python recipes/compare_sparsity.py                        CIFAR-10 (GPU, hours)
    python recipes/compare_sparsity.py --methods dense magnitude beta_lasso --budgets 0.2 0.1 0.05
    python recipes/compare_sparsity.py --demo                 embedded data, offline

β-LASSO, magnitude pruning with the cubic schedule (`PruneDuringFit`), N:M patterns, groups of
weights by the proximal step (`Proximal`) and channels cut at once (`surgery.prune`), beside the
dense base. Each begins with the same trained base, is sparse by the middle of the training, meets
the budget exactly, and trains on what is left; each tries as many settings for as many steps, and
validation images choose. The report shows accuracy against the multiply-adds and the weights that
are not zero. Zeros of single weights save time only on hardware or layers that skip them
(`layers.SparseDense`); the multiply-adds of channels are saved everywhere. N:M leaves the kernels
whose input channels cannot be cut into blocks whole.

Target: none of its own.
"""

from tfconvbias import studies, training

CONFIG = studies.structured_sparsity.ComparisonConfig(
    methods=("dense", "beta_lasso", "magnitude", "n_m", "proximal", "prune_taylor"),
    budgets=(0.5, 0.25, 0.125),
).replace(epochs=80, sparse_epochs=30, fine_tune_epochs=50, run_dir="runs/compare-sparsity")

DEMO = {
    "dataset": "motifs10",
    "width": 0.5,
    "num_train": 1000,
    "num_test": 500,
    "image_size": 16,
    "augment": "none",
    "batch_size": 50,
    "epochs": 4,
    "sparse_epochs": 2,
    "fine_tune_epochs": 2,
    "budgets": (0.25,),
    "seeds": (0,),
    "scratch_learning_rates": (0.1,),
    "fine_tune_learning_rates": (0.05,),
    "alphas": (0.2,),
    "l1s": (1e-3,),
    "run_dir": "runs/compare-sparsity-demo",
}

if __name__ == "__main__":
    training.main(
        CONFIG, studies.structured_sparsity.report_comparison, description=__doc__, demo=DEMO
    )
