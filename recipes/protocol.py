"""The best of a grid for every row, chosen on validation images: Neyshabur 2020, appendix A.2.

    python recipes/protocol.py                          CIFAR-10, α = 150, 400 epochs (GPU, weeks)
    python recipes/protocol.py --epochs-list 400 4000   the gap against the length of training
    python recipes/protocol.py --datasets FOLDER --image-size 16 --num-train 10000 --base-channels 8
        --batch-size 128 --augment flip_crop --epochs-list 30 90 300 --num-kept 6 3
        --device-epochs on
    python recipes/protocol.py --rows resnet18-3x3 resnet18-3x3-beta-lasso resnet18-7x7
        resnet18-7x7-beta-lasso --base-channels 64      points of Figure 5
    python recipes/protocol.py --demo                   embedded data, offline

S-CONV, S-LOCAL and S-FC with SGD, and S-FC with β-LASSO (--rows also takes d-conv, d-local, d-fc,
3-fc, and ResNet18 with kernels of 3 to 15, with SGD and with β-LASSO) get equally many settings:
SGD the paper's 20 of momentum, weight decay and dropout, β-LASSO 20 of total pull, cutoff and
dropout; ResNet18, which has no dropout, 10 of each. The setting of the best validation accuracy is
trained with each of --seeds, with --train-on-all on the validation images too, and only then
measured on the test images. The report has the accuracies with their spread, the gaps against the
length of training, and how local layer 1 is; settings.json is what --settings of table1.py,
table2.py, figure5_kernel_size.py and permutation_invariance.py reads.

A killed command goes on with --resume. Rows, lengths, seeds and values can be added to a folder;
processes with different --rows can share one, and a last one with all rows reports on them.
Target: the paper's accuracies stand in the report; its gap between S-CONV and S-FC on CIFAR-10 is
11.4 points after 400 epochs and 8.4 after 4000, and β-LASSO leaves 1.9.
"""

from tfconvbias import studies, training

CONFIG = studies.neyshabur2020.PROTOCOL

DEMO = {
    "datasets": ("motifs10",),
    "base_channels": 2,
    "num_train": 2000,
    "augment": "none",
    "batch_size": 128,
    "epochs_list": (4, 8),
    "momenta": (0.0, 0.9),
    "weight_decays": (0.0,),
    "dropout_rates": (0.0,),
    "pulls": (0.1, 0.2),
    "cutoffs": (0.1,),
    "seeds": (1, 2),
    "run_dir": "runs/protocol-demo",
}

if __name__ == "__main__":
    training.main(CONFIG, studies.neyshabur2020.report_protocol, description=__doc__, demo=DEMO)
