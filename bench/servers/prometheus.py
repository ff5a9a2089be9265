"""A real Prometheus that scrapes a server every second, with the configuration in deploy/."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

from bench.servers.checkout import ROOT
from bench.servers.processes import answers, until

DEPLOY = ROOT / "deploy"
ANSWER = 30  # seconds


class NoPrometheus(RuntimeError):
    """A program of Prometheus that is not installed; the message says how to get it."""


@dataclass(frozen=True)
class Prometheus:
    """A started Prometheus."""

    url: str

    def ask(self, path: str, **parameters: object) -> Any:
        """Return the data in a response of its HTTP API."""
        reply = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=ANSWER)  # type: ignore[arg-type]
        reply.raise_for_status()
        return reply.json()["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return an expression's current result: a list of series, each with its labels and one value."""
        result: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return result

    def value(self, expression: str) -> float | None:
        """Return an expression's one current value; None if it has none."""
        result = self.query(expression)
        return float(result[0]["value"][1]) if result else None


def program(name: str) -> str:
    """Return the path of a program of Prometheus. Raises NoPrometheus."""
    found = shutil.which(name)
    if found is None:
        raise NoPrometheus(f"{name} is not installed; Debian, Ubuntu: apt-get install prometheus")
    return found


@contextlib.contextmanager
def prometheus_of(metrics_port: int, port: int, folder: Path) -> Iterator[Prometheus]:
    """Start a Prometheus with deploy/prometheus.yml, except that it scrapes `metrics_port`, every second."""
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], "1s")
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{metrics_port}"]}]
    config["rule_files"] = [str(DEPLOY / name) for name in config["rule_files"]]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        program("prometheus"), "--config.file", str(folder / "prometheus.yml"),
        "--storage.tsdb.path", str(folder / "data"), "--web.listen-address", f"127.0.0.1:{port}",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with (
        (folder / "prometheus.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            until(lambda: answers(f"{url}/-/ready"))
            yield Prometheus(url)
        finally:
            process.terminate()


def filled_in(expression: str, over: str) -> str:
    """Return an expression of the dashboard as Grafana sends it: for all models, with rates over `over`."""
    return expression.replace("$model", ".*").replace("$__rate_interval", over)
