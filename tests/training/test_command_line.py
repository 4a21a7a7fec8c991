"""Configurations from the command line."""

import dataclasses
import runpy
import shlex
from pathlib import Path
from typing import Literal

import pytest

from tfconvbias import training
from tfconvbias.training import command_line

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.py"))


@dataclasses.dataclass(frozen=True)
class Config(training.Config):
    count: int = training.option(3, "how many, in %")
    rate: float = training.option(0.5, "how fast")
    kind: Literal["a", "b"] = training.option("a", "which")
    limit: int | None = training.option(None, "at most")
    again: bool = training.option(False, "once more")
    sizes: tuple[int, ...] = training.option((1, 2), "of each")


def parse(*argv, **kwargs):
    return command_line.parse(Config(), argv=argv, **kwargs)


def test_defaults_and_every_kind_of_option():
    assert parse() == Config()
    words = "--count 7 --rate 1e-3 --kind b --limit 9 --again --sizes 4 5 6"
    given = parse(*words.split())
    assert given == Config(7, 1e-3, "b", 9, True, (4, 5, 6))
    assert parse("--limit", "none") == Config()


def test_fixed_fields_are_no_options(capsys):
    assert parse("--count", "7", fixed=("rate",)) == Config(count=7)
    with pytest.raises(SystemExit):
        parse("--rate", "1", fixed=("rate",))
    assert "unrecognized arguments: --rate" in capsys.readouterr().err


def test_a_tuple_takes_none_for_no_values():
    assert parse("--sizes", "none") == Config(sizes=())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_printed_defaults_can_be_pasted_back(recipe, capsys):
    config = runpy.run_path(str(recipe)).get("CONFIG", training.RunConfig())
    with pytest.raises(SystemExit):
        command_line.parse(config, argv=["--help"])
    shown = "".join(capsys.readouterr().out.split())  # lines are broken within words, too
    for option in command_line.options_of(config):
        if option.hint is bool:
            continue
        values = option.value if isinstance(option.value, tuple) else (option.value,)
        printed = shlex.join("none" if v is None else str(v) for v in values) or "none"
        assert "".join(f"[{printed}]".split()) in shown, option.name
        words = ["--" + option.name.replace("_", "-"), *shlex.split(printed)]
        assert command_line.parse(config, argv=words) == config, option.name


def test_demo_changes_fields_and_given_options_win():
    demo = {"count": 1, "rate": 0.1}
    assert parse("--demo", demo=demo) == Config(count=1, rate=0.1)
    assert parse("--demo", "--count", "5", demo=demo) == Config(count=5, rate=0.1)
    assert parse(demo=demo) == Config()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--count", "many"], "invalid int value: 'many'"),
        (["--kind", "c"], "invalid choice: 'c'"),
        (["--size", "3", "--colour", "red"], "unrecognized arguments"),
        (["--demo"], "unrecognized arguments"),
    ],
)
def test_bad_options_are_named(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*argv)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_help_shows_text_and_default_of_every_field(capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.parse(Config(), description="What it does.", argv=["--help"], demo={})
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("What it does.", "how many, in % [3]", "--limit INT", "[none]", "--demo"):
        assert words in shown


@dataclasses.dataclass(frozen=True)
class Outer(training.Config):
    fixed = ("kind",)

    rate: float = training.option(0.1, "the outer one's")
    part: Config = Config(count=9)
    note: str = "no option"


def outer(*argv):
    return command_line.parse(Outer(), argv=argv, demo={"count": 1, "rate": 0.2})


def test_an_inner_configurations_fields_are_options_too():
    assert outer() == Outer()
    assert outer("--count", "4").part == Config(count=4)
    assert outer("--rate", "3", "--demo") == Outer(rate=3.0, part=Config(count=1))


@pytest.mark.parametrize("flag", ["--kind", "--note"])
def test_fixed_fields_and_plain_ones_have_no_option(flag, capsys):
    with pytest.raises(SystemExit):
        outer(flag, "a")
    assert flag in capsys.readouterr().err


def test_an_inner_field_that_does_not_decide_is_not_in_the_identity():
    @dataclasses.dataclass(frozen=True)
    class Placed(training.Config):
        place: str = training.option("here", "where", decides=False)
        part: Config = Config()

    there = Placed(place="there")
    assert there.identity() == Placed().identity() == dataclasses.asdict(Config())
    assert there.replace(count=5).identity()["count"] == 5
    with pytest.raises(TypeError, match="colour"):
        there.replace(colour="red")


def test_arguments_of_is_the_inverse_of_parse():
    config = Config(7, 2e-5, "b", None, True, (9,))
    words = command_line.arguments_of(config, Config()).split()
    assert parse(*words) == config
    assert command_line.arguments_of(Config(), Config()) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"base_channels": 0},
        {"epochs": -1},
        {"learning_rate": float("nan")},
        {"l1": -1e-6},
        {"momentum": 1.0},
        {"dropout_rate": 1.5},
        {"family": "three_fc"},
        {"seed": -1},
        {"seed": 2**32},
        {"permute_pixels": -1},
        {"num_test": 0},
        {"family": "resnet18", "dropout_rate": 0.5},
    ],
    ids=str,
)
def test_configurations_that_make_no_sense_are_refused(changes):
    with pytest.raises(training.ConfigError, match="Received"):
        training.RunConfig(**changes)
    with pytest.raises(SystemExit):
        command_line.parse(
            training.RunConfig(),
            argv=[w for k, v in changes.items() for w in (f"--{k.replace('_', '-')}", str(v))],
        )


def test_choices_are_checked_in_python_too():
    with pytest.raises(training.ConfigError, match=r"'sgd', 'beta_lasso'.*'adam'"):
        training.RunConfig(optimizer="adam")
