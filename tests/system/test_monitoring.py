"""The files in deploy/ work with a real Prometheus that scrapes a real server."""

import contextlib
import itertools
import json
import math
import re
import subprocess
import threading

import pytest

from bench.servers.prometheus import DEPLOY, filled_in, prometheus_of
from tests.conftest import DIGITS, free_port
from tests.support.metrics_page import HISTOGRAMS, page_of, page_when
from tests.support.waiting import PATIENCE, wait_until
from tests.system.test_metrics import put, serving

pytestmark = [pytest.mark.torchserve, pytest.mark.prometheus]

ALERTS = DEPLOY / "alerts.yml"
CASES = DEPLOY.parent / "tests" / "support" / "alert_cases.yml"
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
OVER = "10s"
QUERIES = {
    f"{panel['title']}: {target['legendFormat'] or 'table'}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
# For histograms that TorchServe accepts only as counters (handler/classifier/torchserve/reporter.py).
KNOWN_COMPLAINTS = (
    'non-histogram metrics should not have "_bucket" suffix',
    'non-histogram metrics should not have "le" label',
    'non-histogram and non-summary metrics should not have "_sum" suffix',
    'non-histogram and non-summary metrics should not have "_count" suffix',
    'counter metrics should have "_total" suffix',
)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A server under constant load of good and bad images in turn, and its Prometheus."""
    folder = tmp_path_factory.mktemp("watched")
    with serving(folder) as server, prometheus_of(server.port + 2, free_port(), folder) as one, asked(server):
        yield server, one


def promtool(*words, text: str | None = None) -> subprocess.CompletedProcess[str]:
    command = ["promtool", *map(str, words)]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE, check=False)


@contextlib.contextmanager
def asked(server):
    """Keep sending each digit in turn, and a file that is not an image after each, until the end."""
    ended = threading.Event()

    def ask() -> None:
        for digit in itertools.cycle(DIGITS.values()):
            put(server, digit)
            put(server, b"no image")
            if ended.wait(0.01):
                return

    client = threading.Thread(target=ask)
    client.start()
    yield
    ended.set()
    client.join()


@pytest.mark.parametrize("name", QUERIES)
def test_panel_has_data(watched, name):
    """Each expression of the dashboard returns numbers."""
    _, prometheus = watched
    expression = filled_in(QUERIES[name], OVER)
    assert "$" not in expression

    def numbers() -> bool:
        values = [float(series["value"][1]) for series in prometheus.query(expression)]
        return bool(values) and all(map(math.isfinite, values))

    wait_until(numbers)


def test_prometheus_reads_what_the_workers_did(watched):
    """Its sums match the page, and its quantiles and shares match what was sent."""
    server, prometheus = watched
    before = page_when(server, lambda page: page.requests > 20).requests
    wait_until(lambda: (prometheus.value("sum(classifier_requests_total)") or 0) >= before)
    assert prometheus.value("sum(classifier_requests_total)") <= page_of(server).requests

    def comes_to(expected: float, query: str, within: float = 1e-6) -> bool:
        value = prometheus.value(filled_in(query, OVER))
        return value is not None and abs(value - expected) <= within

    # One client, one request at a time, every other one bad: batches of one, so quantiles are below one.
    wait_until(lambda: comes_to(1, QUERIES["Requests in a batch: mean"]))
    wait_until(lambda: comes_to(0.9, QUERIES["Requests in a batch: p90"]))
    wait_until(lambda: comes_to(0.5, QUERIES["Errors: 4xx"], within=0.1))
    wait_until(lambda: comes_to(0, QUERIES["Errors: 5xx"]))
    wait_until(lambda: comes_to(1, f"sum({QUERIES['Share of each label: {{label}}']})"))


def test_alerts_are_loaded(watched):
    """Prometheus evaluates every rule without an error, and none fires while all is well."""
    _, prometheus = watched

    def health() -> list[str]:
        groups = prometheus.ask("rules")["groups"]
        return [rule["health"] for group in groups for rule in group["rules"]]

    assert len(health()) == len(re.findall("alert:", ALERTS.read_text()))
    wait_until(lambda: set(health()) == {"ok"})
    assert not [alert for alert in prometheus.ask("alerts")["alerts"] if alert["state"] == "firing"]


@pytest.mark.parametrize(
    "words",
    [("check", "rules", ALERTS), ("check", "config", DEPLOY / "prometheus.yml"), ("test", "rules", CASES)],
    ids=["rules", "configuration", "cases"],
)
def test_promtool_is_content(words):
    """Rules and configuration are valid, and each alert fires exactly when it should."""
    done = promtool(*words)
    assert done.returncode == 0, done.stdout + done.stderr


def test_page_is_read_without_complaint(watched):
    """The only complaints of promtool are those about histograms in docs/metrics.md."""
    server, _ = watched
    done = promtool("check", "metrics", text=page_of(server).text)
    assert done.returncode in (0, 3), done.stderr  # 1: it could not be read
    complaints = re.findall(r"^(classifier_\w+) (.*)$", done.stderr, re.MULTILINE)
    parts = {name + part for name in HISTOGRAMS for part in ("_bucket", "_sum", "_count")}
    assert {name for name, _ in complaints} == parts
    assert {text for _, text in complaints} == set(KNOWN_COMPLAINTS)
