"""Two-layer ReLU networks at the edge of stability: locality and weight sharing on the sphere.

    python recipes/edge_of_stability.py                        everything, three seeds
    python recipes/edge_of_stability.py --experiments architectures
    python recipes/edge_of_stability.py --demo                 fewer steps, under two minutes
    python recipes/edge_of_stability.py --experiments architectures --dimension 80 --patch-size 10
        --conv-width 1024 --num-train 512 --steps 20000 --inputs product
        --run-dir runs/edge-of-stability-flat                  flat interpolation

"The Inductive Bias of CNNs: Locality and Weight Sharing Reshape Implicit Regularization",
arXiv 2603.04807. Full-batch gradient descent at η = 0.4 on half the mean squared error, so that the
edge is at sharpness 5; d = 40, patches of 4, 256 points, noise 1. All three networks train at the
edge: the dense one interpolates the noise at once, the local one later, the convolutional one so
slowly that its gap is a transient of the stopping time. Compare at equal ηt: the page has curves.

architectures  dense, local and conv
controls       conv twice as wide; all three at η = 0.05 for the same ηt, so 80,000 steps
sizes          gap against the number of points, all three
dimensions     gap against the dimension of the inputs at patches of 4, all three
patch_sizes    conv, from patches of one number to the whole input
views          which inputs the patches of teacher and network take: blocks side by side, strided,
               random with overlaps, or all the same; shared weights (conv) and own ones (local)

The same command with --resume continues a stopped sweep. Experiments, seeds and sizes can be added
to a folder in the same way. The report states which criteria passed.
"""

from tfconvbias import studies, training

CONFIG = studies.edge_of_stability.StabilitySweep()

DEMO = {
    "experiments": ("architectures", "sizes", "patch_sizes"),
    "seeds": 1,
    "steps": 2000,
    "sweep_steps": 1500,
    "warmup_steps": 300,
    "sizes": (64, 256),
    "patch_sizes": (1, 4, 40),
    "run_dir": "runs/edge-of-stability-demo",
}

if __name__ == "__main__":
    training.main(
        CONFIG, studies.edge_of_stability.report_stability, description=__doc__, demo=DEMO
    )
