"""Imported first, lets a program of this folder be run by hand: it finds what make's PYTHONPATH names."""

import sys
from pathlib import Path

sys.path.extend(str(Path(__file__).resolve().parent.parent / root) for root in ("handler", "archive"))
