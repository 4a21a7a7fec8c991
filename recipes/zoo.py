"""The small trained models that come with the package, all trained again by one command.

    python recipes/zoo.py                                 the models of embedded images, offline
    python recipes/zoo.py --cifar10-jpeg FOLDER           those of the CIFAR-10 JPEG copy, too
    python recipes/zoo.py --only s_fc_beta_lasso_motifs10 one model; several names are possible
    python recipes/zoo.py --resume                        go on after a kill
    python recipes/zoo.py --demo                          the smallest model, in seconds

S-CONV, S-LOCAL and S-FC with SGD, S-FC with β-LASSO stored without its zeros, an S-CONV embedded as
a dense network and trained on (d'Ascoli et al. 2019), and a ResNet-20 with two networks of its
structured sparsity path. Each file has 2 MB at most, which is why images are 16×16 and the networks
narrow. Their cards, with accuracies as measured, are in `saved_models/`; these are not targets of a
paper. About five processor minutes for the embedded images, eleven for the others.
"""

from tfconvbias import studies, training

CONFIG = studies.zoo.ZooConfig()

DEMO = {
    "only": ("s_conv_sgd_motifs10",),
    "num_train": 1000,
    "num_test": 500,
    "epochs": 2,
    "run_dir": "runs/zoo-demo",
    "models_dir": "runs/zoo-demo/saved_models",
}

if __name__ == "__main__":
    training.main(CONFIG, studies.zoo.train_zoo, description=__doc__, demo=DEMO)
