"""Does a learned architecture beat a narrower network of equal cost, epochs and tuning?

    python recipes/structured_sparsity_baselines.py               CIFAR-10 (GPU, hours)
    python recipes/structured_sparsity_baselines.py --dataset FOLDER --image-size 16
        --num-train 10000 --width 0.5 --epochs 8 --sparse-epochs 3 --fine-tune-epochs 5
    python recipes/structured_sparsity_baselines.py --demo        embedded data, offline

"Optimal Convolutional Architectures Via Structured Sparsity Regularizers" (draft): at 50, 25 and
12 % of the base's multiply-adds, networks found by the structured-sparsity regularizer (proximal
step, threshold, `surgery.compact`) and by `surgery.prune` (several importances), beside the base
with all widths times one factor and with random widths. All see the images for equally many
epochs, each tries as many settings with the first seed, and validation images choose. The test
images are used once, after the last training. A killed comparison continues with --resume.

Target: one point more than both baselines at each budget; the report says where it is missed.
"""

from tfconvbias import studies, training

CONFIG = studies.structured_sparsity.ComparisonConfig().replace(
    epochs=80, sparse_epochs=30, fine_tune_epochs=50
)

DEMO = {
    "dataset": "motifs10",
    "width": 0.5,
    "num_train": 1000,
    "num_test": 500,
    "image_size": 16,
    "augment": "none",
    "batch_size": 50,
    "device_epochs": "on",
    "epochs": 4,
    "sparse_epochs": 2,
    "fine_tune_epochs": 2,
    "methods": ("uniform", "random", "prune_taylor", "proximal"),
    "budgets": (0.25,),
    "seeds": (0, 1),
    "scratch_learning_rates": (0.1,),
    "fine_tune_learning_rates": (0.05,),
    "alphas": (0.2,),
    "run_dir": "runs/structured-sparsity-baselines-demo",
}

if __name__ == "__main__":
    training.main(
        CONFIG, studies.structured_sparsity.report_comparison, description=__doc__, demo=DEMO
    )
