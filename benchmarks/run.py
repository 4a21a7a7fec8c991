"""Run every benchmark, or those named: python benchmarks/run.py [NAME ...]."""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ON_DEMAND = {
    "curvature_peers": "needs PyHessian, curvlinops and the PyTorch backend",
    "plan_check": "checks the plan, and compares with no peer",
    "real_scale": "trains for minutes to hours, and needs a data set",
    "sparse_inference": "trains for minutes",
    "sparse_training": "trains for minutes",
}
NAMES = sorted(
    p.stem
    for p in HERE.glob("*.py")
    if p.stem not in ("run", *ON_DEMAND) and not p.stem.startswith("_")
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(NAMES)}")
    chosen = parser.parse_args().names or NAMES
    unknown = sorted(set(chosen) - set(NAMES))
    if unknown:
        parser.error(f"unknown benchmark {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    failed = []
    for name in chosen:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, str(HERE / f"{name}.py")]).returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
