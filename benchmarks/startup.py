"""How long `dermdistill --help` takes, against a bare interpreter and against one that imports torch.

Prints one JSON object: medians in seconds over interleaved repeats, and their ratios.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "help": [sys.executable, "-c", "import sys; sys.argv[1:] = ['--help']; from dermdistill.cli import main; main()"],
    "torch": [sys.executable, "-c", "import torch"],
}


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, command in COMMANDS.items():
            taken[name].append(seconds(command))
    medians = {name: round(statistics.median(values), 4) for name, values in taken.items()}
    print(
        json.dumps(
            {
                "benchmark": "startup",
                "repeats": repeats,
                "seconds": medians,
                "help / python": round(medians["help"] / medians["python"], 2),
                "help / torch": round(medians["help"] / medians["torch"], 3),
            }
        )
    )


if __name__ == "__main__":
    main()
