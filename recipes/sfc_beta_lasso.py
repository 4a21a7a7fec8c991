"""S-FC with β-LASSO on CIFAR-10, CIFAR-100 or SVHN: Neyshabur 2020, Table 2.

    python recipes/sfc_beta_lasso.py                          CIFAR-10, 4000 epochs (GPU, days)
    python recipes/sfc_beta_lasso.py --dataset cifar100|svhn
    python recipes/sfc_beta_lasso.py --dataset FOLDER         train/<class>/*, test/<class>/*
    python recipes/sfc_beta_lasso.py --demo                   small and offline, about a minute

On a processor, --certified-sparsity makes the run cheaper as weights become zero, with the same
result up to rounding (Numba, from pip install tfconvbias[sparse], makes it much cheaper).

Target: test accuracy after 4000 epochs, %: CIFAR-10 85.19, CIFAR-100 59.56, SVHN 94.07 (β = 50);
82.45, 55.58, 93.80 with --beta 0; 82.52, 55.96, 93.66 with --beta 1. The paper tunes the two λ
on a grid for each data set; the defaults are those of a public reproduction on CIFAR-10. A run of
fewer steps needs a larger λ and a smaller β: the pull on a weight adds up over the steps.
"""

from tfconvbias import studies, training

CONFIG = studies.neyshabur2020.TABLE_2.row("S-FC β=50", "cifar10")

DEMO = {
    "dataset": "motifs10",
    "base_channels": 4,
    "augment": "none",
    "l1_conv": 2e-3,
    "l1": 2e-3,
    "beta": 5.0,
    "epochs": 12,
    "batch_size": 128,
}

# The recipe is about one member of one family: these are no options.
FAMILY = ("family", "connectivity", "hidden_units")

if __name__ == "__main__":
    training.main(CONFIG, training.report_run, description=__doc__, demo=DEMO, fixed=FAMILY)
