"""One entry point for all recipes."""

import dataclasses

import pytest

from tfconvbias import training


@dataclasses.dataclass(frozen=True)
class _Config(training.Config):
    steps: int = training.option(5, "how many")

    def __post_init__(self):
        if self.steps < 1:
            raise training.ConfigError(f"steps={self.steps}")


def test_options_and_demo_reach_the_run():
    seen = []
    for argv in ([], ["--demo"], ["--steps", "7"]):
        training.main(_Config(), seen.append, description="text", demo={"steps": 2}, argv=argv)
    assert seen == [_Config(5), _Config(2), _Config(7)]


def test_errors_that_the_user_can_mend_end_as_a_message(capsys):
    with pytest.raises(SystemExit) as exit_info:
        training.main(_Config(), print, description="text", demo={}, argv=["--steps", "0"])
    assert exit_info.value.code == 2

    def diverge(config):
        raise training.TrainingDivergedError("the loss is nan")

    with pytest.raises(SystemExit) as exit_info:
        training.main(_Config(), diverge, description="text", demo={}, argv=[])
    assert exit_info.value.code == 1
    assert "error: the loss is nan" in capsys.readouterr().err
