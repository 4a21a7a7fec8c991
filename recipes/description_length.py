"""Description lengths and bounds of every family's member: Neyshabur 2020, section 3.

    python recipes/description_length.py                          α = 16 and 4
    python recipes/description_length.py --s-channels 150 --d-channels 15     the paper's, 4 GB
    python recipes/description_length.py --kept 0.1 0.01 0.001    thinned out by magnitude
    python recipes/description_length.py --runs runs/A runs/B     trained models, and their errors
    python recipes/description_length.py --runs runs/A --dataset FOLDER       trained on a folder
    python recipes/description_length.py --demo                   small, in seconds

Counts are those of the kernels. Every model is a point in the space of the fully connected one:
n and the non-zero weights count entries of that one's matrices, k the parameters behind them.

Target: none; the paper gives the theorems without figures. Sparse models have shorter descriptions
than dense ones of the same family; sharing without sparsity does not shorten Theorem 2's.
"""

from tfconvbias import studies, training

CONFIG = studies.neyshabur2020.DescriptionTableConfig()

DEMO = {
    "s_channels": 2,
    "d_channels": 1,
    "image_size": 16,
    "run_dir": "runs/description-length-demo",
}

if __name__ == "__main__":
    training.main(
        CONFIG,
        studies.neyshabur2020.report_description_lengths,
        description=__doc__,
        demo=DEMO,
    )
