"""Run as a program: print the bytes that reading a picture file took, and those that it was said to take."""

from __future__ import annotations

import sys
from pathlib import Path

import images
import plain_png
from contract import Contract

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET_THE_PEAK = "5"
KILO = 1024
INPUTS = {
    "grayscale": {"color": "grayscale", "size": [28, 28], "ink": 20, "mean": [0.5], "std": [0.5]},
    "rgb": {"color": "rgb", "size": [224, 224], "mean": [0.5] * 3, "std": [0.5] * 3},
}


def main() -> None:
    """Read the file of the first argument as the contract of the second one wants it."""
    body = Path(sys.argv[1]).read_bytes()
    contract = Contract.from_config({"input": INPUTS[sys.argv[2]], "labels": ["a"]})
    held: list[int] = []
    for module in (images, plain_png):
        module.refuse_beyond_memory = lambda _, wanted: held.append(wanted)
    CLEAR.write_text(FORGET_THE_PEAK, encoding="ascii")
    before = resident("VmRSS")
    images.read_pixels(body, contract)
    print(resident("VmHWM") - before, max(held))


def resident(name: str) -> int:
    """Return a number of bytes that Linux tells of this process."""
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name))) * KILO


if __name__ == "__main__":
    main()
