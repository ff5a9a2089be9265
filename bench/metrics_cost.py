"""What it costs to count and to log requests: the same server without and with, asked in turn."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import ts

from arms import ROOT
from in_turn import CONNECTIONS, Asked, Round, measured, started
from load import check_wrk
from load_pictures import load_pictures
from marked import replace_marked
from report import circumstances, table
from request_log import ASKED

PAGE = ROOT / "docs" / "metrics.md"
FIRST_PORT, STEP = 24_000, 10
ROUNDS = 12
PICTURE = "28x28 PNG"
# What TorchServe itself measures, and nothing of ours: a worker then counts nothing.
THEIRS = Path(ts.__file__).parent / "configs" / "metrics.yaml"
WITHOUT, COUNTED, LOGGED = "TorchServe's own metrics alone", "with ours", "with ours and REQUEST_LOG=1"


@dataclass(frozen=True)
class Server:
    """A server to be asked: its name in the table, its archive, and how it differs from others."""

    name: str
    archive: Path
    settings: str = ""
    environ: str = ""


def main() -> None:
    """Ask the servers in turn; print the table, and write it into docs/metrics.md unless there are others."""
    arguments = _arguments()
    check_wrk()
    archive = arguments.archive
    servers = [
        Server(WITHOUT, archive, settings=f"metrics_config={THEIRS}\n"),
        Server(COUNTED, archive),
        Server(LOGGED, archive, environ="1"),
        *(Server(str(other), other) for other in arguments.others),
    ]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        asked = {
            server.name: stack.enter_context(_started(server, arguments.port + STEP * place, Path(folder)))
            for place, server in enumerate(servers)
        }
        shown = _table(measured(asked, load_pictures()[PICTURE], Path(folder), arguments.rounds))
    print(shown)
    if not arguments.others:
        replace_marked(PAGE, "cost", f"{shown}\n\n{circumstances('torchserve', 'onnxruntime')}")


@contextlib.contextmanager
def _started(server: Server, port: int, folder: Path) -> Iterator[Asked]:
    os.environ[ASKED] = server.environ
    with started(server.archive, port, folder, server.settings) as asked:
        yield asked


def _table(rounds: dict[str, list[Round]]) -> str:
    """Return medians, and the medians of each round's ratios to the first server."""
    rows = []
    base = rounds[WITHOUT]
    for name, of in rounds.items():
        pairs = list(zip(of, base, strict=True))
        rows.append([
            name,
            f"{median(one.per_second for one in of):,.0f}",
            f"{median(one.per_second / other.per_second for one, other in pairs):.3f}",
            f"{median(one.processor for one in of):.1f}",
            f"{median(one.processor / other.processor for one, other in pairs):.3f}",
        ])  # fmt: skip
    head = [f"{PICTURE}, {CONNECTIONS} connections", "answers/s", "ratio", "processor, µs an answer", "ratio"]
    return table(head, rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("others", type=Path, nargs="*", help="other .mar files, to be asked as well")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--port", type=int, default=FIRST_PORT, help="the first of some dozen ports")
    return parser.parse_args()


if __name__ == "__main__":
    main()
