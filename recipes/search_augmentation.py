"""Find an augmentation policy of one's own by density matching: Lim et al., Fast AutoAugment, 2019.

    python recipes/search_augmentation.py               CIFAR-10, 5 folds, S-CONV(64) (GPU, hours)
    python recipes/search_augmentation.py --dataset FOLDER --family resnet18 --base-channels 32
    python recipes/search_augmentation.py --demo        embedded data, about a minute

Networks trained on all folds but one judge candidates of five sub-policies on the fold that they
have not seen; a tree-structured Parzen estimator proposes them. The sub-policies of the ten best
candidates of each round, about 500 in all, are a JSON file that `data.FastAutoAugment` and every
recipe's --augment read. Validation and test images are not touched. A search that was killed
continues with --resume. It needs the extra `policies`, which brings Optuna.

Target: none of its own; the paper's policies lift a Wide-ResNet-28-10 on CIFAR-10 from 96.1 to
97.3 %, beside 97.4 % with AutoAugment. Judge a policy by training with it and without it.
"""

from tfconvbias import training, tuning

CONFIG = tuning.AugmentationSearchConfig(
    run=training.RunConfig(
        family="s",
        connectivity="conv",
        base_channels=64,
        dataset="cifar10",
        augment="flip_crop_cutout",
        epochs=100,
        batch_size=512,
        tensorboard=False,
    ),
)

DEMO = {
    "dataset": "motifs10",
    "base_channels": 4,
    "num_train": 2000,
    "augment": "none",
    "epochs": 6,
    "batch_size": 128,
    "num_folds": 2,
    "num_rounds": 1,
    "num_candidates": 30,
    "num_kept": 2,
    "max_judged": 200,
    "run_dir": "searches/augmentation-demo",
}

if __name__ == "__main__":
    training.main(CONFIG, tuning.report_augmentation_search, description=__doc__, demo=DEMO)
