"""A real Prometheus that asks a server each second, by the configuration in deploy/."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from conftest import ROOT, free_port
from up_process import until

DEPLOY = ROOT / "deploy"
ANSWER = 30  # seconds


@dataclass(frozen=True)
class Prometheus:
    """A started Prometheus."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of its HTTP API."""
        reply = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=ANSWER)
        assert reply.status_code == 200, reply.text
        return reply.json()["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what an expression gives now: a list of series, each with its labels and one value."""
        return self.ask("query", query=expression)["result"]

    def value(self, expression: str) -> float | None:
        """Return the one value that an expression gives now; None where it gives nothing."""
        result = self.query(expression)
        return float(result[0]["value"][1]) if result else None


def program(name: str) -> str:
    """Return where a program of Prometheus's is; fail the test where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"there is no {name} on this machine; apt-get install prometheus")
    return found


def promtool(*words: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    command = [program("promtool"), *map(str, words)]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


@contextlib.contextmanager
def prometheus_of(metrics_port: int, folder: Path) -> Iterator[Prometheus]:
    """Start a Prometheus; what differs from deploy/prometheus.yml is the port, and that it asks more often."""
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], "1s")
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{metrics_port}"]}]
    config["rule_files"] = [str(DEPLOY / name) for name in config["rule_files"]]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        program("prometheus"), "--config.file", folder / "prometheus.yml",
        "--storage.tsdb.path", folder / "data", "--web.listen-address", f"127.0.0.1:{port}",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with (folder / "prometheus.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as one:
        try:
            until(lambda: _is_ready(url))
            yield Prometheus(url)
        finally:
            one.terminate()


def _is_ready(url: str) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(f"{url}/-/ready", timeout=ANSWER).status_code == 200
    return False
