"""Time that `import tfconvbias` adds to `import keras`, in fresh processes, in turn.

    python benchmarks/import_time.py [--rounds 7]

Target: at most 0.3 s.
"""

import argparse
import statistics
import subprocess
import sys

CODE = (
    "import time, keras; start = time.perf_counter(); import tfconvbias; "
    "print(time.perf_counter() - start)"
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    seconds = [
        float(
            subprocess.run(
                [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(rounds)
    ]
    print(
        f"import tfconvbias after keras: median {statistics.median(seconds):.3f} s, "
        f"min {min(seconds):.3f}, max {max(seconds):.3f}, {rounds} processes"
    )


if __name__ == "__main__":
    main()
