"""S-CONV, S-LOCAL and S-FC with SGD beside S-FC with β-LASSO: Neyshabur 2020, Tables 1 and 2.

    python recipes/compare_s_family.py                    α = 150, 256 M parameters in S-FC (GPU)
    python recipes/compare_s_family.py --dataset FOLDER --base-channels 8 --epochs 20
    python recipes/compare_s_family.py --demo             embedded data, about two minutes

Target on CIFAR-10, test accuracy after 400 / 4000 epochs: S-CONV 84.14 / 87.05, S-LOCAL
81.52 / 85.86, S-FC 72.77 / 78.63, S-FC with β-LASSO (β = 50) 85.19 after 4000.
"""

from tfconvbias import studies, training

TABLE_1 = studies.neyshabur2020.TABLE_1
CONFIG = training.Comparison(
    title="S family",
    run=TABLE_1.run.replace(dataset="cifar10"),
    rows={
        "S-CONV, SGD": TABLE_1.definitions["S-CONV"],
        "S-LOCAL, SGD": TABLE_1.definitions["S-LOCAL"],
        "S-FC, SGD": TABLE_1.definitions["S-FC"],
        "S-FC, β-LASSO": studies.neyshabur2020.S_FC_BETA_LASSO,
    },
)

# λ far above the paper's grid and β below its 50: the pull on a weight adds up over the steps,
# and the demo takes 744 of them where 400 epochs of CIFAR-10 take 35,000.
DEMO = {
    "dataset": "motifs10",
    "base_channels": 4,
    "augment": "none",
    "epochs": 12,
    "batch_size": 128,
    "l1": 2e-3,
    "l1_conv": 2e-3,
    "beta": 5.0,
}

if __name__ == "__main__":
    training.main(CONFIG, training.report_comparison, description=__doc__, demo=DEMO)
