"""What a search found: a table, the best configuration, and the command that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfconvbias.lazy import keras_tuner
from tfconvbias.training import RunConfig, command_line, format_table, write_rows
from tfconvbias.tuning.errors import SearchError
from tfconvbias.tuning.search_config import SearchConfig

_METRICS = ("val_accuracy", "val_loss", "accuracy", "loss", "nonzero_share", "best_epoch", "epochs")


@dataclass(frozen=True)
class SearchResults:
    """The trials of a search, best first.

    Attributes:
        folder: where the search is kept; `results.csv` holds `rows`.
        rows: a trial each, best first: `trial`, `status`, `score`, the values tried and the
            metrics of the trial's best epoch. Failed trials come last, with the message.
        best: the configuration of the best trial, to be run on its own.
    """

    folder: Path
    rows: list[dict[str, Any]]
    best: RunConfig

    @classmethod
    def from_oracle(
        cls, config: SearchConfig, folder: Path, oracle: keras_tuner.Oracle
    ) -> SearchResults:
        """Collect the trials and write `results.csv`.

        Raises:
            SearchError: If no trial succeeded.
        """
        trials = [t for t in oracle.trials.values() if t.status in ("COMPLETED", "FAILED")]
        sign = -1 if oracle.objective.direction == "max" else 1
        trials.sort(key=lambda t: (t.score is None, sign * (t.score or 0.0), t.trial_id))
        rows = [_row(config, trial) for trial in trials]
        done = [row for row in rows if row["status"] == "COMPLETED"]
        if not done:
            message = next((row["message"] for row in rows if row["message"]), "there was none")
            raise SearchError(f"No trial succeeded. The first one's end: {message}")
        write_rows(folder / "results.csv", rows)
        return cls(folder, rows, config.trial({name: done[0][name] for name in config.choices()}))

    def pareto_front(self) -> list[dict[str, Any]]:
        """The trials than which none is both more accurate and sparser, densest first.

        Example:
            >>> results = SearchResults(Path(), [
            ...     {"status": "COMPLETED", "val_accuracy": 0.8, "nonzero_share": 0.5},
            ...     {"status": "COMPLETED", "val_accuracy": 0.7, "nonzero_share": 0.1},
            ...     {"status": "COMPLETED", "val_accuracy": 0.6, "nonzero_share": 0.2},
            ... ], RunConfig())
            >>> [row["val_accuracy"] for row in results.pareto_front()]
            [0.8, 0.7]
        """
        done = [row for row in self.rows if row["status"] == "COMPLETED"]
        front = [
            row
            for row in done
            if not any(
                other["val_accuracy"] >= row["val_accuracy"]
                and other["nonzero_share"] <= row["nonzero_share"]
                and (other["val_accuracy"], other["nonzero_share"])
                != (row["val_accuracy"], row["nonzero_share"])
                for other in done
            )
        ]
        return sorted(front, key=lambda row: -row["nonzero_share"])

    def table(self, most: int = 20) -> str:
        """The best trials as a Markdown table; a star marks those on the Pareto front."""
        return format_table(self.table_rows()[:most])

    def table_rows(self) -> list[dict[str, str]]:
        """Cells by the name of their column, a row for each trial, as `table` shows them."""
        front = {row["trial"] for row in self.pareto_front()}
        return [
            {
                "trial": row["trial"] + (" *" if row["trial"] in front else ""),
                **{name: _shown(name, row[name]) for name in row if name in _SHOWN | _fields()},
                "end": row["status"].lower(),
            }
            for row in self.rows
        ]

    def command(self, program: str | None = None) -> str:
        """The command that runs the best configuration.

        Args:
            program: What takes `RunConfig`'s options; the recipe `train` by default.
        """
        program = program or command_line.program_name("train")
        return f"{program} {command_line.arguments_of(self.best, RunConfig())}".strip()


_SHOWN = {"val_accuracy", "accuracy", "nonzero_share", "best_epoch", "epochs"}


def _fields() -> set[str]:
    return set(RunConfig.__dataclass_fields__)


def _row(config: SearchConfig, trial: Any) -> dict[str, Any]:
    from tfconvbias.tuning.tuner import values_of

    values = values_of(trial)
    metrics = trial.metrics.metrics
    return {
        "trial": trial.trial_id,
        "status": trial.status,
        "score": trial.score,
        **{name: values[name] for name in config.choices()},
        **{
            name: float(trial.metrics.get_last_value(name)) if name in metrics else None
            for name in _METRICS
        },
        "message": (trial.message or "").strip().rpartition("\n")[2],
    }


def _shown(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name in ("val_accuracy", "accuracy", "nonzero_share"):
        return f"{100 * value:.2f} %"
    return f"{value:g}"
