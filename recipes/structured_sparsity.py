"""Structured sparsity: learn widths and kernel sizes, make the network smaller, draw the frontier.

    python recipes/structured_sparsity.py                     ResNet-20 on CIFAR-10 (GPU, a day)
    python recipes/structured_sparsity.py --dataset FOLDER --num-train 10000 --epochs 20
    python recipes/structured_sparsity.py --penalty size --taus 0.01 0.05
    python recipes/structured_sparsity.py --no-residual       the plain network
    python recipes/structured_sparsity.py --demo              embedded data, offline

"Optimal Convolutional Architectures Via Structured Sparsity Regularizers" (draft). The base trains
without a penalty; then a path of growing α, each started from the one before; each network is
thresholded at τ, made compact (really fewer and smaller kernels) and fine-tuned. Beside them train
the base with narrower layers, and networks of random widths with as many multiply-adds, for as many
epochs as the last network of the path has had in all. The report
draws accuracy against multiply-adds, parameters and measured time, the widths along the depth,
kernel sizes, kernels, and their correlation. A killed sweep continues with --resume.

A kernel in front of a BatchNormalization has no length of its own, so the proximal step shrinks it
together with that one's γ; kernels and γ become exactly zero, and τ = 0 removes them. Against no
resistance γ shrinks by α · rate · steps / 2 in a stage of the path: α should bring that near 1.

Target: the draft has no figures for CIFAR-10. Ours: within one point of the base at no more than
half of its multiply-adds.
"""

from tfconvbias import training

CONFIG = training.SparsityConfig()

DEMO = {
    "dataset": "motifs10",
    "width": 0.5,
    "num_train": 2000,
    "num_test": 1000,
    "augment": "none",
    "batch_size": 100,
    "epochs": 5,
    "sparse_epochs": 4,
    "fine_tune_epochs": 2,
    "alphas": (0.3, 0.4, 0.5),
    "uniform_widths": (0.5,),
    "random_widths": 1,
    "latency_batch": 128,
    "run_dir": "runs/structured-sparsity-demo",
}

if __name__ == "__main__":
    training.experiment_recipe(CONFIG, training.report_sparsity, description=__doc__, demo=DEMO)
