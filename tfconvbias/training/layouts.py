"""Where each family's dense kernels are cut, so that a model too large for one device fits."""

from tfconvbias.training.devices import Layout
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.run_config import RunConfig

_COLUMNS = (None, "model")
_ROWS = ("model", None)

LAYOUTS: dict[str, Layout] = {
    # Each unit of one layer lies where the next layer's rows that read it lie, so that of every
    # two layers one needs no exchange. The classifier is small, and stays whole.
    "s": {r"(^|/)conv1/kernel$": _COLUMNS, r"(^|/)fc1/kernel$": _ROWS},
    "d": {
        r"(^|/)conv[1357]/kernel$": _COLUMNS,
        r"(^|/)conv[2468]/kernel$": _ROWS,
        r"(^|/)fc1/kernel$": _COLUMNS,
    },
    "three_fc": {r"(^|/)fc1/kernel$": _COLUMNS, r"(^|/)fc2/kernel$": _ROWS},
    "resnet18": {
        r"(^|/)(conv1|stage\d+_block\d+_(conv1|shortcut))/kernel$": _COLUMNS,
        r"(^|/)stage\d+_block\d+_conv2/kernel$": _ROWS,
    },
}
"""Family → which axis of which kernel is cut; for `connectivity="dense"`."""


def layout_of(config: RunConfig) -> Layout | None:
    """The layout of a run's family for `strategy="model_parallel"`, else `None`.

    Raises:
        ConfigError: If the network has no large dense kernels to cut.
    """
    if config.strategy != "model_parallel":
        return None
    if config.connectivity != "dense" and config.family != "three_fc":
        raise ConfigError(
            "strategy='model_parallel' cuts dense kernels: it needs connectivity='dense'. "
            f"Received: connectivity={config.connectivity!r}"
        )
    return LAYOUTS[config.family]
