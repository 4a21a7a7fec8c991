"""Any member of any family, by its options: what tune.py and search_augmentation.py print.

    python recipes/train.py --family d --connectivity local --base-channels 15 --dataset cifar100
    python recipes/train.py --augment POLICY.json         a policy of search_augmentation.py
    python recipes/train.py --demo                        small and offline, under a minute

The recipes named after a model have its paper's settings and target; here all are the defaults of
`training.RunConfig`.
"""

from tfconvbias import training

DEMO = {
    "dataset": "motifs10",
    "base_channels": 4,
    "epochs": 4,
    "batch_size": 128,
}

if __name__ == "__main__":
    training.main(training.RunConfig(), training.report_run, description=__doc__, demo=DEMO)
