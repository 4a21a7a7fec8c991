"""S-FC, S-LOCAL and S-CONV at the edge of stability: does the picture on the sphere carry over?

    python recipes/edge_of_stability_images.py --dataset FOLDER   512 images, minutes on a CPU
    python recipes/edge_of_stability_images.py --demo             embedded data, under two minutes

Beyond arXiv 2603.04807, whose networks have two layers and inputs on spheres: the networks of
Neyshabur 2020 on a small image subset, under full-batch gradient descent with a quarter of the
labels redrawn at random. η = 1 for half the squared error averaged over classes puts the edge at
sharpness 2. The sharpness is that of the loss with the batch's own normalisation statistics.
The same command with --resume continues a stopped one.
"""

from tfconvbias import studies, training

CONFIG = studies.edge_of_stability.StabilityImages()

DEMO = {
    "dataset": "motifs10",
    "base_channels": 2,
    "num_train": 128,
    "num_test": 200,
    "steps": 100,
    "warmup_steps": 20,
    "measure_every": 20,
    "run_dir": "runs/edge-of-stability-images-demo",
}

if __name__ == "__main__":
    training.main(
        CONFIG, studies.edge_of_stability.report_stability_images, description=__doc__, demo=DEMO
    )
