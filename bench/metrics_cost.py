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

import psutil
import ts

from arms import PREDICTIONS, ROOT
from instance import Instance
from java import find_java
from load import Request, check_wrk, load
from load_pictures import load_pictures
from marked import replace_marked
from readiness import wait_until_ready
from report import circumstances, table
from request_log import ASKED
from settings import Settings
from starting import describe

PAGE = ROOT / "docs" / "metrics.md"
FIRST_PORT, STEP = 24_000, 10
ROUNDS, SECONDS, CONNECTIONS = 12, 4, 32
READY = 60.0  # seconds
PICTURE = "28x28 PNG"
MICROSECONDS = 1e6
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
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as started:
        asked = {
            server.name: started.enter_context(_started(server, arguments.port + STEP * place, Path(folder)))
            for place, server in enumerate(servers)
        }
        shown = _table(_measured(asked, Path(folder), arguments.rounds))
    print(shown)
    if not arguments.others:
        replace_marked(PAGE, "cost", f"{shown}\n\n{circumstances('torchserve', 'onnxruntime')}")


@dataclass(frozen=True)
class Asked:
    """A server that runs: its port, and its Java process, whose children the workers are."""

    port: int
    java: psutil.Process

    @property
    def processor(self) -> float:
        """The seconds of a processor that it has taken so far."""
        return sum(sum(one.cpu_times()[:2]) for one in (self.java, *self.java.children(recursive=True)))


@dataclass(frozen=True)
class Round:
    """What one server did in one round."""

    per_second: float
    processor: float  # µs an answer


@contextlib.contextmanager
def _started(server: Server, port: int, folder: Path) -> Iterator[Asked]:
    """Start a server in a folder of its own, and stop it at the end."""
    config = folder / f"{port}.properties"
    config.write_text((ROOT / "config.properties").read_text(encoding="utf-8") + server.settings)
    instance = Instance(folder / str(port))
    os.environ[ASKED] = server.environ
    settings = Settings.from_file(config, port)
    archive = server.archive.resolve()
    state = instance.start(settings, find_java(), archive.parent, [describe(archive)], None)
    try:
        wait_until_ready(state, instance.logs, READY)
        yield Asked(port, psutil.Process(state.pid))
    finally:
        instance.stop()


def _measured(asked: dict[str, Asked], folder: Path, rounds: int) -> dict[str, list[Round]]:
    """Return what each server did in each round, the first one, of warm-up, left out."""
    request = Request(PREDICTIONS, load_pictures()[PICTURE])
    measured: dict[str, list[Round]] = {name: [] for name in asked}
    for turn in range(rounds + 1):
        names = list(asked)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            before = asked[name].processor
            answers = load(asked[name].port, request, CONNECTIONS, SECONDS, folder)
            if answers.failed:
                raise RuntimeError(f"{name}: {answers.failed} requests of {answers.requests} failed")
            spent = (asked[name].processor - before) / answers.requests * MICROSECONDS
            measured[name].append(Round(answers.per_second, spent))
    return {name: of[1:] for name, of in measured.items()}


def _table(measured: dict[str, list[Round]]) -> str:
    """Return medians, and the medians of each round's ratios to the first server."""
    rows = []
    base = measured[WITHOUT]
    for name, of in measured.items():
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
