"""The grids over which the paper picks each row's settings, appendix A.2."""

from tfconvbias.studies.neyshabur2020.tables import TABLE_1
from tfconvbias.tuning import SearchConfig

_L1 = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5)

SEARCH = SearchConfig(
    run=TABLE_1.run.replace(
        family="s",
        connectivity="dense",
        optimizer="beta_lasso",
        momentum=0.0,
        weight_decay=0.0,
        tensorboard=False,
    ),
    learning_rates=(0.1,),
    dropout_rates=(0.0, 0.5),
    momenta=(0.0, 0.9),
    weight_decays=(0.0, 1e-4, 2e-4, 5e-4, 1e-3),
    l1_values=_L1,
    l1_conv_values=_L1,
)
"""S-FC: 50 settings of β-LASSO, or 20 of SGD.

The paper does not tell its dropout rate; 0.5 is ours. It has looked at the learning
rates 0.01 and 1 too.
"""
