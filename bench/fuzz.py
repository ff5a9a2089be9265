"""Hostile input against the handler in a process, against TorchServe, and against its reverse proxy."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.hostile.mutations import originals
from bench.hostile.requests import hostile_requests
from bench.hostile.sending import HEAD, Tally, hostile_over_http, in_a_process, mutations_over_http
from bench.load.clients import Clients
from bench.load.images import DIGITS
from bench.report.markdown import circumstances, replace_marked, table
from bench.servers.checkout import ROOT
from bench.servers.stack import BOUND, Stack, pids, settled, started

PAGE = ROOT / "docs" / "hostile-input.md"
FINDINGS = Path("run") / "hostile"  # inputs that caused a finding, to be sent again
OVER_HTTP = 10  # one in so many images is also sent over HTTP, each way


def main() -> int:
    """Print the table, write it to docs/hostile-input.md; return 1 if something was found."""
    arguments = _arguments()
    tallies = list(_images(arguments))
    with tempfile.TemporaryDirectory() as run, started(arguments.archive, Path(run)) as stack:
        before = settled(stack)
        tallies += _over_http(stack, arguments)
        after = settled(stack, before)
    shown = table(HEAD, [tally.cells for tally in tallies])
    packages = circumstances("torchserve", "pillow", "kornia-rs", "onnxruntime")
    memory = f"Seed {arguments.seed}. {_memory(before, after)}"
    print(f"{shown}\n\n{memory}")
    replace_marked(PAGE, "fuzz", f"{shown}\n\n{memory}\n{packages}")
    found = [f"{tally.name}: {name}: {said}" for tally in tallies for name, said in tally.findings.items()]
    # Findings in TorchServe without its proxy are only reported; behind the proxy there must be none.
    mine = [finding for finding in found if not finding.startswith("TorchServe")]
    print(*found, sep="\n", file=sys.stderr)
    return int(bool(mine) or any(tally.died for tally in tallies) or any(
        after[name] > before[name] + BOUND[name] for name in BOUND))  # fmt: skip


def _images(arguments: argparse.Namespace) -> Iterator[Tally]:
    kinds = list(originals())
    for kind in kinds:
        numbers = range(-(-arguments.mutations // len(kinds)))
        yield in_a_process(arguments.archive, kind, numbers, arguments.seed, FINDINGS)
        print(f"{kind}: done", file=sys.stderr)


def _over_http(stack: Stack, arguments: argparse.Namespace) -> Iterator[Tally]:
    numbers = range(arguments.mutations // OVER_HTTP)
    with Clients(stack.door, DIGITS, count=1) as clients:
        for way, port in (("TorchServe", stack.port), ("proxy", stack.door)):
            before = pids(stack)
            tally = mutations_over_http(port, numbers, arguments.seed, f"{way}: images")
            tally.died = len(before - pids(stack))
            yield tally
            for kind, hostile in hostile_requests(DIGITS["2"]).items():
                before = pids(stack)
                tally = hostile_over_http(port, hostile, f"{way}: {kind}")
                tally.died = len(before - pids(stack))
                yield tally
                print(f"{way}, {kind}: done", file=sys.stderr)
    good = Tally("proxy: good images meanwhile", good=clients.right)
    good.other = len(clients.wrong) + clients.failed.total()
    good.findings = {"wrong": str(clients.wrong[:5]), "failed": str(clients.failed)} if good.other else {}
    yield good


def _memory(before: dict[str, float], after: dict[str, float]) -> str:
    text = ", ".join(f"{name} {before[name]:.0f} MB before and {after[name]:.0f} MB after" for name in before)
    return f"Resident memory, the largest of its kind: {text}."


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("--mutations", type=int, default=20_000, help="images, over all formats")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damage")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
