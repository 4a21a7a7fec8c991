"""Known and base architectures, and the nested groups: Tables 1 and 2 and Figure 2; no training.

    python recipes/structured_sparsity_tables.py                      a minute, any machine
    python recipes/structured_sparsity_tables.py --networks GoogLeNet --kernel-size 7

"Optimal Convolutional Architectures Via Structured Sparsity Regularizers" (draft). The report sets
the draft's Table 1 beside what the networks have, as this library counts it (AlexNet with its two
groups, GoogLeNet without auxiliary classifiers), and draws the groups of half-rings and rings.

Target: the printed parameters and multiply-adds. The draft counts AlexNet's depth without the
softmax layer and the others' with it. Its parameters of GoogLeNet fall short of the published
table by 0.3 M.
"""

from tfconvbias import studies, training

CONFIG = studies.structured_sparsity.ArchitectureTable()

DEMO = {"networks": ("GoogLeNet",), "run_dir": "runs/structured-sparsity-tables-demo"}

if __name__ == "__main__":
    training.main(
        CONFIG, studies.structured_sparsity.report_architectures, description=__doc__, demo=DEMO
    )
