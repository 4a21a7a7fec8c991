"""S-FC and S-CONV with the pixels in place and permuted: Neyshabur 2020, sections 1 and 5.

    python recipes/permutation_invariance.py           three data sets, 400 epochs (GPU, days)
    python recipes/permutation_invariance.py --datasets FOLDER --base-channels 8 --epochs 20
    python recipes/permutation_invariance.py --demo    embedded data, offline

Target: S-FC's accuracy stays, with SGD and with β-LASSO, but for what another seed changes
(--seeds 0 1 2 shows how much that is); S-CONV's falls. Pixels are permuted after the augmentation,
which knows their places.
"""

from tfconvbias import studies, training

CONFIG = studies.neyshabur2020.PermutationStudy(
    title="Permutation invariance",
    datasets=("cifar10", "cifar100", "svhn"),
    run=training.RunConfig(
        base_channels=150,
        augment="fast_autoaugment",
        permute_pixels=1,
        l1_conv=2e-5,
        l1=5e-6,
        beta=50.0,
        epochs=400,
        batch_size=512,
    ),
)

DEMO = {
    "datasets": ("motifs10",),
    "base_channels": 4,
    "augment": "none",
    "l1_conv": 2e-3,
    "l1": 2e-3,
    "beta": 5.0,
    "epochs": 12,
    "batch_size": 128,
}

if __name__ == "__main__":
    training.main(CONFIG, studies.report_study, description=__doc__, demo=DEMO)
