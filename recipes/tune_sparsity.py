"""Search α and τ of structured sparsity with KerasTuner, by accuracy less a price for cost.

    python recipes/tune_sparsity.py                        ResNet-20 on CIFAR-10 (GPU, a day)
    python recipes/tune_sparsity.py --algorithm bayesian --max-trials 30
    python recipes/tune_sparsity.py --penalty size --multiply-add-price 0.2
    python recipes/tune_sparsity.py --demo                 embedded data, offline

The base trains once; each trial penalizes it with α, thresholds at τ, makes it compact and
fine-tunes. Trials are judged on validation images; the command printed last runs the best one
with its baselines and tests it. A search that was killed continues with --resume.

Target: none of its own; see structured_sparsity.py.
"""

from tfconvbias import studies, training

CONFIG = studies.structured_sparsity.SparsitySearchConfig()

DEMO = {
    "dataset": "motifs10",
    "width": 0.5,
    "num_train": 2000,
    "augment": "none",
    "batch_size": 100,
    "epochs": 4,
    "sparse_epochs": 4,
    "fine_tune_epochs": 2,
    "alphas": (0.3, 0.5),
    "run_dir": "searches/structured-sparsity-demo",
}

if __name__ == "__main__":
    training.main(
        CONFIG, studies.structured_sparsity.report_sparsity_search, description=__doc__, demo=DEMO
    )
