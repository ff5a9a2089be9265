"""Run as a program: for each line "COLOR FILE", print the bytes that reading it took and those reserved.

Each file is read in a fresh process: memory freed after an earlier file would hide what a later one takes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from classifier.contract import Contract
from classifier.image import decode, png

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET_THE_PEAK = "5"
KILO = 1024
INPUTS = {
    "grayscale": {"color": "grayscale", "size": [28, 28], "ink": 20, "mean": [0.5], "std": [0.5]},
    "rgb": {"color": "rgb", "size": [224, 224], "mean": [0.5] * 3, "std": [0.5] * 3},
}


def main() -> None:
    """Read the files named on standard input, each with the contract of its colour."""
    for line in sys.stdin:
        color, file = line.rstrip("\n").split(" ", 1)
        if os.fork() == 0:
            print(*cost(Path(file).read_bytes(), color), flush=True)
            os._exit(0)
        _, status = os.wait()
        if status != 0:
            sys.exit(f"reading {file} failed")


def cost(body: bytes, color: str) -> tuple[int, int]:
    """Return the peak memory that reading a file took, and the memory reserved for it, in bytes."""
    contract = Contract.from_config({"input": INPUTS[color], "labels": ["a"]})
    reserved: list[int] = []
    for module in (decode, png):
        module.refuse_beyond_memory = lambda _, wanted: reserved.append(wanted)
    CLEAR.write_text(FORGET_THE_PEAK, encoding="ascii")
    before = resident("VmRSS")
    decode.read_pixels(body, contract)
    return resident("VmHWM") - before, max(reserved)


def resident(name: str) -> int:
    """Return a memory figure that Linux reports for this process, in bytes."""
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name))) * KILO


if __name__ == "__main__":
    main()
