"""Does a compiled model escape Python's interpreter lock? Threads against processes, for each road."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from lock_probe import REQUEST
from report import circumstances, table

ROUNDS = 3
# Processes, and threads in each.
WAYS = {"1 thread": (1, 1), "2 threads": (1, 2), "2 processes": (2, 1)}
OUT = Path("docs") / "interpreter-lock.md"
PROBE = Path(__file__).with_name("lock_probe.py")

TEXT = """# Python's interpreter lock, measured

It is often said that Python's lock keeps threads from running a model side by side, and that TorchScript
escapes it. `make interpreter-lock` measures that: pictures answered in a second, one at a time, one
arithmetic thread each; medians of {rounds} interleaved rounds. In brackets: against one thread.

{table}

{circumstances}

"""


def main() -> None:
    """Measure every road every way, in turn, and write the table."""
    arguments = _arguments()
    files = {
        "eager": arguments.archive,
        "torchscript": arguments.exported / f"{arguments.archive.stem}.scripted.pt",
        "onnx": arguments.exported / f"{arguments.archive.stem}.onnx",
        "aoti": arguments.exported / f"{arguments.archive.stem}.pt2",
        REQUEST: arguments.archive,
    }
    cases = [(road, way) for _ in range(ROUNDS) for road in files for way in WAYS]
    rates: dict[tuple[str, str], list[float]] = {}
    for road, way in tqdm(cases, unit="run"):
        rate = per_second(road, arguments.archive, files[road], *WAYS[way])
        rates.setdefault((road, way), []).append(rate)
    medians = {case: statistics.median(values) for case, values in rates.items()}
    rows = [[road, *(_shown(medians, road, way) for way in WAYS)] for road in files]
    shown = table(["", *WAYS], rows)
    packages = circumstances("torch", "onnxruntime")
    OUT.write_text(
        TEXT.format(rounds=ROUNDS, table=shown, circumstances=packages) + _meaning(OUT), encoding="utf-8"
    )
    print(shown)


def per_second(road: str, archive: Path, file: Path, processes: int, threads: int) -> float:
    """Return how many pictures a second all processes answered together."""
    command = [sys.executable, str(PROBE), road, str(archive), str(file), "--threads", str(threads)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for process in running:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{' '.join(command)} did not become ready")
    # All begin at once; communicate() would wait for the first before it wakes the second.
    for process in running:
        if process.stdin is not None:
            process.stdin.write("\n")
            process.stdin.flush()
    return sum(float(process.communicate()[0]) for process in running)


def _shown(medians: dict[tuple[str, str], float], road: str, way: str) -> str:
    alone = medians[road, next(iter(WAYS))]
    return f"{medians[road, way]:,.0f} ({medians[road, way] / alone:.2f}x)"


def _meaning(path: Path) -> str:
    """Keep what was written by hand under the table about its meaning."""
    mark = "## What it means"
    return mark + path.read_text(encoding="utf-8").partition(mark)[2] if path.exists() else f"{mark}\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("exported", type=Path, help="the folder of its exports")
    return parser.parse_args()


if __name__ == "__main__":
    main()
