"""Which files are mutated, and which tests are theirs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Module:
    """One row of the table in tests/README.md."""

    files: tuple[str, ...]
    """Glob patterns below `tfconvbias/`."""
    tests: tuple[str, ...]
    """Glob patterns below `tests/`."""
    excluded: tuple[str, ...] = ()
    """Files below `tfconvbias/` which only slow tests, or tests on other hardware, can check."""

    def sources(self, root: Path) -> Iterator[Path]:
        """The files to mutate, relative to the repository's root."""
        left_out = {root / "tfconvbias" / name for name in self.excluded}
        for pattern in self.files:
            for path in sorted((root / "tfconvbias").glob(pattern)):
                if path.name != "__init__.py" and path not in left_out:
                    yield path.relative_to(root)

    def test_files(self, root: Path) -> list[str]:
        """The module's own test files, relative to the repository's root."""
        found = {path for pattern in self.tests for path in (root / "tests").glob(pattern)}
        return sorted(str(path.relative_to(root)) for path in found)


def _folder(name: str, *excluded: str) -> Module:
    return Module((f"{name}/*.py",), (f"{name}/test_*.py",), excluded)


MODULES = {
    "analysis": _folder("analysis"),
    "callbacks": Module(
        (
            "callbacks/certified_*.py",
            "callbacks/weight_steps.py",
            "callbacks/freeze_support.py",
            "callbacks/prune_during_fit.py",
        ),
        (
            "callbacks/test_certified_*.py",
            "callbacks/test_weight_steps.py",
            "callbacks/test_freeze*.py",
            "callbacks/test_prune*.py",
        ),
    ),
    "connectivity": _folder("connectivity"),
    "data": _folder("data", "data/streamed_dataset.py", "data/named.py"),
    "embedding": _folder("embedding"),
    "graph": _folder("graph"),
    "layers": _folder("layers"),
    "models": _folder("models"),
    "optimizers": _folder("optimizers"),
    "regularizers": _folder("regularizers"),
    "surgery": _folder("surgery"),
    "training": _folder(
        "training",
        "training/accelerator_table.py",
        "training/devices.py",
        "training/jax_devices.py",
        "training/tensorflow_devices.py",
        "training/device_epochs.py",
    ),
}
