"""What the search for ink costs: the archive with and without the contract's `ink`, asked in turn."""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path
from statistics import median

import yaml

from arm_archives import CONFIG
from arms import ROOT
from in_turn import CONNECTIONS, Round, measured, started
from load import check_wrk
from load_pictures import in_a_corner, load_pictures
from marked import replace_marked
from report import circumstances, table

PAGE = ROOT / "docs" / "performance.md"
FIRST_PORT, STEP = 24_100, 10
ROUNDS = 12
WITH, WITHOUT = "with ink", "without"


def main() -> None:
    """Ask both in turn, picture by picture; write the table into docs/performance.md."""
    arguments = _arguments()
    check_wrk()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        without = archive_without_ink(folder)
        with (
            started(arguments.archive, arguments.port, folder) as one,
            started(without, arguments.port + STEP, folder) as other,
        ):
            asked = {WITH: one, WITHOUT: other}
            rows = [
                _row(name, measured(asked, picture, folder, arguments.rounds))
                for name, picture in (load_pictures() | {"250x250 PNG, in a corner": in_a_corner()}).items()
            ]
    head = [f"{CONNECTIONS} connections", "answers/s with the search", "ratio", "µs of a processor", "more"]
    print(shown := table(head, rows))
    replace_marked(PAGE, "ink-cost", f"{shown}\n\n{circumstances('torchserve', 'pillow')}")


def archive_without_ink(folder: Path) -> Path:
    """Build the same archive but for that line of the contract."""
    config = folder / "model-config.yaml"
    contract = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    del contract["input"]["ink"]
    config.write_text(yaml.safe_dump(contract), encoding="utf-8")
    archive = folder / "convnet.mar"
    command = ["make", "--silent", "archive", f"CONFIG={config}", f"MAR={archive}"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return archive


def _row(name: str, rounds: dict[str, list[Round]]) -> list[str]:
    pairs = list(zip(rounds[WITH], rounds[WITHOUT], strict=True))
    return [
        name,
        f"{median(one.per_second for one in rounds[WITH]):,.0f}",
        f"{median(one.per_second / other.per_second for one, other in pairs):.3f}",
        f"{median(one.processor for one in rounds[WITH]):,.0f}",
        f"{median(one.processor - other.processor for one, other in pairs):+,.0f}",
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="the .mar file that looks for ink")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--port", type=int, default=FIRST_PORT, help="the first of some dozen ports")
    return parser.parse_args()


if __name__ == "__main__":
    main()
