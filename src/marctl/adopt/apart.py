"""Examine an archive's files for adopt.py. Runs in the sandbox, because this may take any time and memory."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path


def main(folder: str, *modules: str) -> int:
    """Answer one request. This project's modules are imported from the folders `modules`."""
    sys.path[:0] = modules
    from marctl.adopt.adoption import Question, look, written

    print(written(look(Path(folder), Question(**json.loads(sys.stdin.buffer.read())))))
    return 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main(*sys.argv[1:]))
