"""/metrics reports what happened: a real TorchServe, real requests, exact numbers."""

import contextlib
import random
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
import ts
import yaml

from bench.servers.stack import Stack
from classifier.headers import HEALTH_CHECK
from classifier.torchserve.reporter import FAMILIES, INFO
from tests.conftest import DIGITS, ROOT, Served, free_port, make
from tests.support.images import bad_images
from tests.support.metrics_page import HISTOGRAMS, page_of, page_when
from tests.support.waiting import PATIENCE
from tests.support.wire import said

pytestmark = pytest.mark.torchserve

FAMILIES_FILE = ROOT / "src" / "marctl" / "serve" / "torchserve" / "metrics.yaml"
BAD = bad_images(DIGITS["3"])
HEALTH_CHECKS = "classifier_health_checks_total"
# How each error message begins, and the reason that it counts for; all others are damaged files.
REASONS = {
    "the request has no content": "empty",
    "cannot read": "unknown_format",
    "the image is too large": "too_large",
    "the JPEG image has": "too_many_scans",
    "there are": "several_fields",
    "the image was sent as": "web_form",
    "top_k is": "option",
    "the JSON is": "json",
    "the form has the fields": "too_many_pictures",
}


@contextlib.contextmanager
def serving(folder: Path, **variables):
    """A TorchServe that only one test uses."""
    port, run = free_port(), folder / "run"
    done = make("serve", RUN=str(run), PORT=str(port), **variables)
    try:
        assert done.returncode == 0, done.stderr
        yield Served(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}", port, run, done.stdout)
    finally:
        make("stop", RUN=str(run))


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A TorchServe that only these tests use."""
    with serving(tmp_path_factory.mktemp("counted"), EXPLAIN="1") as server:
        yield server


def put(server: Served, body: bytes, **options) -> requests.Response:
    return requests.put(server.predictions, data=body, timeout=PATIENCE, **options)


def reason_of(sentence: str) -> str:
    return next((reason for start, reason in REASONS.items() if sentence.startswith(start)), "damaged")


def told_from(server: Served, before: float, more: int):
    """Return the page once it reports exactly this many more requests than before."""
    page = page_when(server, lambda now: now.requests >= before + more and now.is_whole)
    assert page.requests == before + more
    assert page.is_whole
    return page


def difference(now, before, name: str, label: str) -> Counter:
    return now.by(label, name) - before.by(label, name)


def test_start_counts_as_a_question_of_health_alone(tmp_path):
    """The golden image of a start counts separately; everything else starts at 0."""
    with serving(tmp_path) as server:
        page = page_when(
            server,
            lambda now: (now.total(HEALTH_CHECKS), now.total("classifier_worker_starts_total")) == (1, 2),
        )
        names = {name for name, _, _ in page.samples}
        assert page.total(HEALTH_CHECKS) == 1
        assert page.requests == page.total("classifier_predictions_total") == 0
        assert page.total("classifier_worker_starts_total") == 2
        assert {*FAMILIES, INFO} <= names
        assert {labels["label"] for name, labels, _ in page.samples if "predictions" in name} == set(DIGITS)


def test_every_request_is_counted(counted, engine):
    """Good, bad and useless requests and forms count by status, reason and label.

    Two images in a form are one request and two answers.
    """
    before = page_of(counted)
    work = [*DIGITS.values()] * 3 + [body for body, _ in BAD.values()]
    random.Random(0).shuffle(work)  # noqa: S311 no secret
    replies = [put(counted, body) for body in work]
    two, web = {"a": DIGITS["1"], "b": DIGITS["1"]}, {"Content-Type": "application/x-www-form-urlencoded"}
    explanations = counted.predictions.replace("predictions", "explanations")
    many = dict.fromkeys(map(str, range(65)), b"x")
    replies += [
        requests.post(counted.predictions, files=two, timeout=PATIENCE),
        requests.post(counted.predictions, files=many, timeout=PATIENCE),
        requests.post(counted.predictions, DIGITS["3"], headers=web, timeout=PATIENCE),
        put(counted, DIGITS["3"], headers={"Accept": "application/json; top_k=0"}),
        put(counted, b'{"no": 1}'),
        requests.put(explanations, b"x", timeout=PATIENCE),
        requests.post(explanations, files=two, timeout=PATIENCE),
    ]
    requests.get(f"{counted.management}/models/convnet?customized=true", timeout=PATIENCE)
    requests.put(f"{counted.inference}/predictions/other", DIGITS["1"], timeout=PATIENCE)
    answered = [reply for reply in replies if reply.status_code == 200]
    good = [label for reply in answered for label in reply.text.splitlines()]
    refused = [reason_of(said(reply)) for reply in replies if reply.status_code == 400]
    assert (len(answered), len(good)) == (31, 32)
    assert set(refused) == {*REASONS.values(), "damaged"}

    now = told_from(counted, before.requests, len(replies))
    assert difference(now, before, "classifier_requests_total", "status") == {
        "200": len(answered), "400": len(refused)
    }  # fmt: skip
    assert difference(now, before, "classifier_rejected_total", "reason") == Counter(refused)
    assert difference(now, before, "classifier_predictions_total", "label") == Counter(good)
    sure = difference(now, before, "classifier_label_confidence_total", "label")
    outputs = engine.handler.outputs(list(DIGITS.values()))  # log-probabilities
    for digit, confidence in zip(DIGITS, np.exp(outputs.max(axis=1)), strict=True):
        assert sure[digit] == pytest.approx((3 if digit != "1" else 5) * confidence, abs=1e-4)


def test_histograms_hold_every_request(counted):
    """Sent one by one, each request is a batch: all counts agree, and buckets are cumulative."""
    before = page_of(counted)
    for body in [*DIGITS.values(), b"no image"]:
        put(counted, body)
    now = told_from(counted, before.requests, 11)
    counts = {name: now.total(f"{name}_count") - before.total(f"{name}_count") for name in HISTOGRAMS}
    assert {name.removeprefix("classifier_"): count for name, count in counts.items()} == {
        "request_duration_seconds": 11, "batch_size": 11, "decode_duration_seconds": 10,
        "inference_duration_seconds": 10, "confidence": 10,
    }  # fmt: skip
    assert now.total("classifier_batch_size_sum") - before.total("classifier_batch_size_sum") == 11
    for name in HISTOGRAMS:
        up_to = now.by("le", f"{name}_bucket")
        values = [up_to[bound] for bound in sorted(up_to, key=float)]
        assert values == sorted(values)
        assert up_to["+Inf"] == now.total(f"{name}_count")
        assert now.total(f"{name}_sum") > before.total(f"{name}_sum")
    spent = {name: now.total(f"classifier_{name}_duration_seconds_sum") for name in ("decode", "request")}
    assert spent["decode"] < spent["request"]


def test_workers_add_up(counted):
    """Two workers, 32 clients: nothing is lost or counted twice, and no batch exceeds the limit."""
    before = page_of(counted)
    work = [body for _ in range(80) for body in DIGITS.values()]
    with ThreadPoolExecutor(32) as pool:
        labels = Counter(pool.map(lambda body: put(counted, body).text, work))
    now = told_from(counted, before.requests, len(work))
    assert difference(now, before, "classifier_predictions_total", "label") == labels
    assert now.total("classifier_batch_size_sum") == now.requests
    up_to = now.by("le", "classifier_batch_size_bucket")
    assert up_to["16.0"] == up_to["+Inf"] == now.total("classifier_batch_size_count")


def test_dead_worker_takes_nothing_back(counted):
    """Reported values are kept; the new worker adds to them, and is counted itself."""
    at_first = page_of(counted).requests
    put(counted, DIGITS["1"])
    before = told_from(counted, at_first, 1)
    one, _ = Stack(0, counted.port, counted.run).workers
    one.kill()
    page_when(counted, lambda now: now.total("classifier_worker_starts_total") == 3)
    with ThreadPoolExecutor(8) as pool:
        answered = sum(pool.map(lambda _: put(counted, DIGITS["2"]).status_code == 200, range(40)))
    assert answered == 40
    now = told_from(counted, before.requests, 40)
    assert now.total("classifier_worker_starts_total") == 3
    assert difference(now, before, "classifier_predictions_total", "label") == {"2": 40}


def test_archive_is_named(counted):
    """The digest is the one in the server's description."""
    described = requests.get(f"{counted.management}/models/convnet?customized=true", timeout=PATIENCE).json()
    [(labels, value)] = [(of, value) for name, of, value in page_of(counted).samples if name == INFO]
    assert value == 1
    assert (labels["model"], labels["version"]) == ("convnet", "1.0")
    assert labels["sha256"] == described[0]["customizedMetadata"]["archive_sha256"]


def test_health_checks_are_counted_on_their_own(counted):
    """Marked requests change no label's count, in any batch; a bad one is refused like any other."""
    before = page_of(counted)
    marked = {HEALTH_CHECK: "1"}
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(put, counted, DIGITS["7"], headers=marked) for _ in range(64)]
        asked += [pool.submit(put, counted, DIGITS["4"]) for _ in range(64)]
        assert {one.result().text for one in asked} == {"7", "4"}
    assert put(counted, b"no", headers=marked).status_code == 400
    page_when(counted, lambda now: now.total(HEALTH_CHECKS) >= before.total(HEALTH_CHECKS) + 64)
    now = told_from(counted, before.requests, 65)
    assert now.total(HEALTH_CHECKS) == before.total(HEALTH_CHECKS) + 64
    assert difference(now, before, "classifier_predictions_total", "label") == {"4": 64}
    assert now.total("classifier_batch_size_sum") == now.requests


def test_labels_of_any_kind_are_told(tmp_path):
    """Characters that TorchServe splits lines at are percent-encoded in labels."""
    odd = ["zero, nil", "one: 1", "two|2", "100 %", "vier ünf", "a=b", 'say "six"', "#7", "", "neun\n"]
    config = yaml.safe_load((ROOT / "model" / "model-config.yaml").read_text())
    contract = tmp_path / "odd.yaml"
    contract.write_text(yaml.safe_dump({**config, "labels": odd}))
    mar = str(tmp_path / "convnet.mar")
    built = make("archive", CONFIG=str(contract), MAR=mar)
    assert built.returncode == 0, built.stderr
    with serving(tmp_path, MAR=mar) as server:
        before = page_of(server).requests
        answers = [put(server, body).content.decode() for body in DIGITS.values()]
        assert answers == odd
        told = told_from(server, before, 10).by("label", "classifier_predictions_total")
        names = ["zero%2C nil", "one%3A 1", "two%7C2", "100 %25", "vier %C3%BCnf", "a=b"]
        assert told == dict.fromkeys([*names, r"say \"six\"", "#7", "%00", "neun%0A"], 1)


def test_torchserve_without_our_metrics_file_answers(tmp_path):
    """With TorchServe's own list of metrics, ours are not reported and nothing fails."""
    properties = tmp_path / "own.properties"
    own = Path(ts.__file__).parent / "configs" / "metrics.yaml"
    properties.write_text((ROOT / "config.properties").read_text() + f"\nmetrics_config={own}\n")
    with serving(tmp_path, PROPERTIES=str(properties)) as server:
        assert [put(server, body).text for body in DIGITS.values()] == list(DIGITS)
        page = page_when(server, lambda now: now.total("PredictionTime") > 0)
        assert page.total("PredictionTime") > 0
        assert "classifier_" not in page.text
        log = (server.run / "logs" / "model_log.log").read_text()
        assert "the archive's own metrics are not reported" in log
        assert "Traceback" not in log


def test_every_family_is_described():
    """metrics.yaml has exactly what the handler reports, and docs/metrics.md explains it."""
    listed = yaml.safe_load(FAMILIES_FILE.read_text())["model_metrics"]
    names = {one["name"] for kind in listed.values() for one in kind} - {"PredictionTime"}
    assert names == {*FAMILIES, INFO}
    page = (ROOT / "docs" / "metrics.md").read_text()
    explained = set(re.findall(r"`(classifier_\w+)`", page))
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in names} <= explained
    assert explained <= names | {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
