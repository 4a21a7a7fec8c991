"""From CNN to eFCN at each switch time: d'Ascoli et al. 2019, Figures 2 to 12.

    python recipes/efcn_switch_time.py                        the paper's run on CIFAR-10 (GPU)
    python recipes/efcn_switch_time.py --dataset FOLDER --num-train 10000 --epochs 20
    python recipes/efcn_switch_time.py --target local         the relaxation that it suggests
    python recipes/efcn_switch_time.py --target wide          locality relaxed, sharing kept
    python recipes/efcn_switch_time.py --num-seeds 5          means and spread, Figure 3 with bars
    python recipes/efcn_switch_time.py --demo                 embedded data, under three minutes

"Finding the Needle in the Haystack with Convolutions: on the benefits of architectural bias".
VanillaCNN trains with plain SGD; its snapshots at log-spaced epochs are embedded as dense networks
of the same function and train on, beside a standard network of that shape.

Targets on CIFAR-10, test accuracy: CNN about 72 %, FCN 55 to 57.5 %, eFCN at switch time 0 about
62.5 %, best near 20 epochs and above the CNN; δ at most 8 %, of the FCN about 97 %. The eFCN has 74
million weights, and measuring it takes 9 GB of main memory. A killed run continues with --resume.
After the CNN the other networks are independent: --jobs N trains N of them at a time, each on a GPU
of its own where there are several, and --ray ADDRESS hands them to a cluster.
"""

from tfconvbias import studies, training

CONFIG = studies.dascoli2019.SwitchTimeConfig()

# Batches of 50 give 960 steps of the CNN and 400 of each embedded network, five times as many as
# batches of 250 would. With them the paper's learning rate of 0.1 is unstable: rounding decides
# whether the CNN learns.
DEMO = {
    "dataset": "motifs10",
    "filters": 8,
    "num_train": 2000,
    "num_test": 1000,
    "epochs": 24,
    "learning_rate": 0.05,
    "embedded_epochs": 10,
    "embedded_learning_rate": 0.03,
    "switch_times": (0, 6, 24),
    "batch_size": 50,
    "curvature_samples": 200,
    "num_points": 5,
    "string_epochs": 3,
    "string_samples": 200,
    "run_dir": "runs/efcn-switch-time-demo",
}

if __name__ == "__main__":
    training.main(CONFIG, studies.dascoli2019.report_switch_time, description=__doc__, demo=DEMO)
