"""Accuracy against parameters for ResNet18, D-CONV, S-CONV and 3-FC: Neyshabur 2020, Figures 2, 6.

    python recipes/figure2_scaling.py                  three data sets, to 10⁹ weights (GPU, weeks)
    python recipes/figure2_scaling.py --datasets FOLDER --budgets 10000 100000 1000000 --epochs 30
    python recipes/figure2_scaling.py --demo           embedded data, offline

Target: the families' order, ResNet18, D-CONV, S-CONV, 3-FC, is the same at every size, and the
fewer weights a family needs to fit, the better it is once over-parameterised. The paper prints no
values and doesn't name the training accuracy at which a network counts as fitting.
--include-extra trains on SVHN's extra images, too, as Fast AutoAugment's pipeline does.
"""

from tfconvbias import studies, training

CONFIG = studies.neyshabur2020.WidthStudy(
    title="Figure 2",
    datasets=("cifar10", "cifar100", "svhn"),
    run=training.RunConfig(
        augment="fast_autoaugment",
        epochs=400,
        batch_size=512,
    ),
)

# The embedded motifs are told apart by their place, which ResNet18's pooling hides from it.
DEMO = {
    "datasets": ("motifs10",),
    "num_train": 4000,
    "budgets": (10_000, 40_000, 160_000),
    "augment": "none",
    "epochs": 8,
    "batch_size": 100,
}

if __name__ == "__main__":
    training.main(CONFIG, studies.report_study, description=__doc__, demo=DEMO)
