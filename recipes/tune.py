"""Search rate, λ or momentum and weight decay, and dropout: Neyshabur 2020, appendix A.2.

    python recipes/tune.py                              S-FC, β-LASSO, 50 trials of 400 epochs (GPU)
    python recipes/tune.py --optimizer sgd              momentum × weight decay × dropout, 20 trials
    python recipes/tune.py --learning-rates 0.01 0.1 1  all the rates that the paper looked at
    python recipes/tune.py --algorithm hyperband        or bayesian --max-trials 30
    python recipes/tune.py --objective accuracy_and_nonzeros --nonzero-price 0.1
    python recipes/tune.py --demo                       four trials, embedded data, under a minute

Trials are judged on validation images; the command printed last runs the best one and tests it.
A search that was killed continues with --resume. Several processes share one search when each has
KERASTUNER_TUNER_ID (chief; any other name for a worker), KERASTUNER_ORACLE_IP and
KERASTUNER_ORACLE_PORT of the chief in its environment, and the same options.

Target: none of its own. The paper's best of the grid: S-FC with β-LASSO 85.19 % on CIFAR-10 after
4000 epochs, with SGD 72.77 / 78.63 % after 400 / 4000.
"""

from tfconvbias import studies, training, tuning

CONFIG = studies.neyshabur2020.SEARCH.replace(dataset="cifar10")

# λ far above the paper's grid: the demo takes 56 steps where 400 epochs of CIFAR-10 take 35,000.
DEMO = {
    "dataset": "motifs10",
    "base_channels": 2,
    "num_train": 2000,
    "augment": "none",
    "epochs": 4,
    "batch_size": 128,
    "beta": 5.0,
    "dropout_rates": (0.0,),
    "l1_values": (1e-4, 2e-3),
    "l1_conv_values": (1e-4, 2e-3),
    "run_dir": "searches/demo",
}

if __name__ == "__main__":
    training.main(CONFIG, tuning.report_search, description=__doc__, demo=DEMO)
