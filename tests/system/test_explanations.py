"""Explanations: each pixel's contribution to an answer, by integrated gradients."""

import json

import numpy as np
import pytest
import requests

from tests.conftest import DIGITS, ROOT, Served, free_port, make
from tests.support.flask_process import flask_of
from tests.support.waiting import PATIENCE
from tests.support.wire import GOOD, json_of, said

OK, BAD_REQUEST, NOT_IMPLEMENTED = 200, 400, 501
ADDRESS = "/explanations/convnet"
# The sum of the contributions differs from the change of the output: the gradient is assumed to be smooth
# between 128 points, but the model has kinks (ReLU, max-pool). The largest difference for the ten digits was
# 1.9 % (docs/answers.md); other weights have their kinks elsewhere.
COMPLETE = 0.05


def explained(engine, row: dict, **headers) -> dict:
    [answer] = engine.answer([row], [{"explain": "True", **headers}])
    assert (answer.status, answer.headers["content-type"]) == (OK, "application/json"), answer.content
    return json.loads(answer.content)


@pytest.mark.parametrize("digit", DIGITS)
def test_shares_add_up_to_what_the_output_changes_by(engine, digit):
    """Completeness holds, which many other methods lack."""
    told = explained(engine, {"body": DIGITS[digit]})
    assert (told["label"], told["target"]) == (digit, digit)
    change = told["output"] - told["baseline_output"]
    assert np.sum(told["attributions"]) == pytest.approx(change, rel=COMPLETE)
    assert change > 0


def test_outputs_are_those_of_the_model(engine):
    """Both outputs are the model's: for the image, and for a black image."""
    told = explained(engine, {"body": GOOD})
    handler = engine.handler
    pixels = handler.read_pixels(GOOD)
    outputs = handler.inference(handler.preprocess([pixels, np.zeros_like(pixels)]))
    # ONNX Runtime's and torch's sums differ by the archive's own tolerance.
    assert [told["output"], told["baseline_output"]] == pytest.approx(outputs[:, 3], abs=2e-5)
    assert told["input"] == pixels[:, :, 0].tolist()
    assert np.shape(told["attributions"]) == (28, 28)


def test_paper_has_no_share(engine):
    """A pixel that is black in both images contributes nothing."""
    told = explained(engine, {"body": GOOD})
    shares, levels = np.array(told["attributions"]), np.array(told["input"])
    assert not shares[levels == 0].any()
    assert shares[levels > 0].any()


def test_another_label_can_be_explained(engine):
    """Other pixels count for an 8 in an image of a 3 than for the 3."""
    three = explained(engine, {"body": GOOD})
    eight = explained(engine, {"body": GOOD}, **{"x-query": "target=8"})
    assert (eight["label"], eight["target"]) == ("3", "8")
    assert eight["output"] < three["output"]
    assert eight["attributions"] != three["attributions"]
    assert explained(engine, {"body": GOOD}, Accept="application/json; target=8") == eight


def test_two_images_are_not_explained_at_once(engine):
    """One image per request is explained; other requests in the batch are not affected."""
    tensor = b'{"inputs": []}'
    bad = [{"a": GOOD, "b": GOOD}, {"body": json_of(GOOD, GOOD)}, {"body": b"no"}, {"body": tensor}]
    why = {"explain": "True", "Content-Type": "multipart/form-data; boundary=b"}
    *refused, good = engine.answer([*bad, {"body": GOOD}], [why, why, why, why, {}])
    assert [one.status for one in refused] == [BAD_REQUEST] * 4
    assert refused[0].reason == refused[1].reason == "there are 2 images; send only the one to explain"
    assert refused[2].reason.startswith("cannot read 2 bytes")
    assert refused[3].reason.startswith('tensors cannot be explained; send {"instances"')
    assert good.body == "3"


def test_model_without_gradients_is_named(engine, monkeypatch):
    """An archive with only an ONNX file answers, but cannot explain."""
    monkeypatch.setitem(vars(engine.handler), "eager", None)
    [answer] = engine.answer([{"body": GOOD}], [{"explain": "True"}])
    assert answer.status == NOT_IMPLEMENTED
    assert answer.reason.startswith("this model is an ONNX file without gradients")


@pytest.fixture(scope="module")
def explaining(archive, tmp_path_factory):
    """Servers only for explanations: once they have explained something, they have loaded torch."""
    run, port = tmp_path_factory.mktemp("explaining"), free_port()
    done = make("serve", RUN=str(run), PORT=str(port), EXPLAIN="1")
    assert done.returncode == 0, done.stderr
    served = Served(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}", port, run, done.stdout)
    with flask_of(archive, EXPLAIN="1") as flask:
        yield {"TorchServe": served.inference, "Flask": flask.url}
    make("stop", RUN=str(run))


def test_servers_explain_alike(explaining, engine):
    """Explanations match the handler's, and images are answered as before."""
    expected = explained(engine, {"body": GOOD})
    for url in explaining.values():
        for body in (GOOD, json_of(GOOD)):
            reply = requests.post(url + ADDRESS, body, timeout=PATIENCE)
            assert (reply.status_code, reply.headers["Content-Type"]) == (OK, "application/json")
            told = reply.json()
            # With another number of threads torch sums in another order.
            np.testing.assert_allclose(told.pop("attributions"), expected["attributions"], rtol=0, atol=1e-4)
            for key in ("output", "baseline_output", "probability"):
                assert told.pop(key) == pytest.approx(expected[key], abs=1e-4)
            assert told == {key: expected[key] for key in told}
        assert requests.post(url + "/predictions/convnet", GOOD, timeout=PATIENCE).text == "3"


def test_what_cannot_be_explained_is_refused(explaining):
    """It is refused in JSON, as everywhere else."""
    for url in explaining.values():
        reply = requests.post(url + ADDRESS, b"hello", timeout=PATIENCE)
        assert reply.status_code == BAD_REQUEST
        assert said(reply).startswith("cannot read 5 bytes")


def check_closed(url: str) -> None:
    """Assert that no image is explained, and that the response says how to turn explanations on."""
    reply = requests.post(url + ADDRESS, GOOD, timeout=PATIENCE)
    assert reply.status_code == NOT_IMPLEMENTED
    assert said(reply).startswith("explanations are off on this server; start the server with make serve")
    assert requests.post(url + "/predictions/convnet", GOOD, timeout=PATIENCE).text == "3"


@pytest.mark.parametrize("word", ["", "0", "off", "no", "False"])
def test_flask_explains_only_when_asked_to(archive, word):
    """It does not, even if captum is installed, as it is here."""
    with flask_of(archive, EXPLAIN=word) as flask:
        check_closed(flask.url)


@pytest.mark.parametrize("word", ["", "0"])
def test_torchserve_explains_only_when_asked_to(tmp_path, word):
    """It does not, even if captum is installed, as it is here."""
    run, port = str(tmp_path / "run"), free_port()
    try:
        done = make("serve", RUN=run, PORT=str(port), EXPLAIN=word)
        assert done.returncode == 0, done.stderr
        check_closed(f"http://127.0.0.1:{port}")
    finally:
        make("stop", RUN=run)


def test_unknown_word_is_named(tmp_path):
    """EXPLAIN is a switch: any other value starts nothing."""
    done = make("serve", RUN=str(tmp_path / "run"), PORT=str(free_port()), EXPLAIN="perhaps")
    assert done.returncode != 0
    assert "error: EXPLAIN=perhaps is not known; use EXPLAIN=1 or EXPLAIN=0" in done.stderr


def test_captum_is_optional():
    """Serving does not need it; only its own extra installs it."""
    serve = (ROOT / "requirements" / "serve.txt").read_text()
    assert "captum" not in serve
