"""Which bias does a CNN live on, locality or weight sharing, and can its embedding find back?

    python recipes/efcn_way_back.py                          CIFAR-10 (GPU)
    python recipes/efcn_way_back.py --dataset FOLDER --filters 8 --num-train 2000 --kernel-size 15
    python recipes/efcn_way_back.py --demo                   embedded data, about a minute

After d'Ascoli et al. 2019, "Finding the Needle in the Haystack with Convolutions"; the paper has
the dense corner only. From one epoch of one CNN on, each bias is relaxed by itself:

                 local      not local
    shared       conv       wide (larger kernels, --kernel-size)
    not shared   local      dense

All corners train for the same epochs at the same rate; validation images choose the epoch. Then
each is projected onto convolutions and trains on as a CNN. The dense corner also trains with
β-LASSO on its off-local weights: a λ at which they return to zero says that the needle stays.
The paper gives no target for any of this. A killed run continues with --resume.
"""

from tfconvbias import studies, training

CONFIG = studies.dascoli2019.WayBackConfig()

DEMO = {
    "dataset": "motifs10",
    "filters": 2,
    "kernel_size": 9,
    "num_train": 500,
    "num_validation": 200,
    "num_test": 200,
    "switch_time": 5,
    "learning_rate": 0.05,
    "embedded_epochs": 5,
    "embedded_learning_rate": 0.03,
    "fine_tune_epochs": 3,
    "l1": (1e-4,),
    "num_seeds": 1,
    "batch_size": 50,
    "run_dir": "runs/efcn-way-back-demo",
}

if __name__ == "__main__":
    training.main(CONFIG, studies.dascoli2019.report_way_back, description=__doc__, demo=DEMO)
