"""Reads `tcb`'s command line and calls what it names."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tfconvbias import __version__, terminal
from tfconvbias.commands import listing, pages, requirements
from tfconvbias.commands.recipe_files import run_recipe
from tfconvbias.training.entry_point import guarded

_EPILOG = """examples:
  tcb list                                      recipes, models, data sets, runs in runs/
  tcb run sconv_cifar100 --demo                 a recipe, small and offline
  tcb run sconv_cifar100 --help                 its options
  tcb compare runs/first runs/second            a table and a page of finished runs
"""


def run(words: Sequence[str]) -> None:
    """Run any command of `tcb` but `requirements`.

    Raises:
        SystemExit: With status 2 for a bad option, else as `training.main`.
    """
    words = list(words)
    # What follows `run RECIPE` is the recipe's own, `--help` included.
    if words[:1] == ["tune"]:
        words = ["run", *words]
    if words[:1] == ["run"] and len(words) > 1 and words[1] not in ("-h", "--help"):
        guarded(lambda: run_recipe(words[1], words[2:]))
        return
    parser = _parser()
    chosen = parser.parse_args(words)
    if chosen.command is None:
        parser.print_help()
        return
    try:
        guarded(lambda: _call(chosen))
    except BrokenPipeError:  # such as by `tcb list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def _call(chosen: argparse.Namespace) -> None:
    match chosen.command:
        case "list":
            topics = tuple(chosen.topics) or listing.TOPICS
            if set(topics) & {"models", "presets", "datasets"}:
                terminal.import_keras()
            for paragraph in listing.listing(topics, Path(chosen.folder)):
                print(paragraph, end="\n\n", flush=True)
        case "report":
            pages.report(chosen.folders)
        case "compare":
            pages.compare_runs(chosen.folders, chosen.output, chosen.title)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tcb",
        description="tfconvbias: the bias of convolutions, studied and used.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tfconvbias {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    part = commands.add_parser("list", help="recipes, models, data sets, and the runs in a folder")
    part.add_argument(
        "topics",
        nargs="*",
        metavar="TOPIC",
        type=_topic,
        help=f"some of {', '.join(listing.TOPICS)}; all by default",
    )
    part.add_argument("--folder", default="runs", help="where to look for runs [runs]")

    part = commands.add_parser(
        "run",
        help="run a recipe: tcb run RECIPE, then its own options",
        epilog="`tcb list recipes` names them; `tcb run RECIPE --help` shows a recipe's options.",
    )
    part.add_argument("recipe", metavar="RECIPE", help="its name; its own options follow")

    commands.add_parser("tune", help="search for settings: the recipe tune, with its options")

    part = commands.add_parser("report", help="write the pages of finished runs again")
    part.add_argument("folders", nargs="+", metavar="FOLDER", help="a run, or a folder of runs")

    part = commands.add_parser("compare", help="set finished runs side by side")
    part.add_argument("folders", nargs="+", metavar="RUN", help="a run, or a folder of runs")
    part.add_argument("--output", default="runs/comparison", help="[runs/comparison]")
    part.add_argument("--title", default="Comparison", help="heading of the page [Comparison]")

    requirements.add_arguments(commands.add_parser("requirements", help=requirements.HELP))
    return parser


def _topic(name: str) -> str:
    if name not in listing.TOPICS:
        raise argparse.ArgumentTypeError(
            f"there is no topic {name!r}; there are {', '.join(listing.TOPICS)}"
        )
    return name
