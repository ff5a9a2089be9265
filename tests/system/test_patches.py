"""Each change to TorchServe can be left out, and the answers are the same."""

import requests

from marctl.serve.torchserve.patches import NAMES
from tests.conftest import DIGITS, free_port, make
from tests.support.waiting import PATIENCE


def test_unpatched_torchserve_answers_the_same(tmp_path):
    """Without patches, TorchServe's own class and its log lines for each batch are back."""
    run, port = tmp_path / "run", free_port()
    done = make("serve", RUN=str(run), PORT=str(port), UNPATCHED=",".join(NAMES))
    try:
        assert done.returncode == 0, done.stderr
        for digit, image in DIGITS.items():
            url = f"http://127.0.0.1:{port}/predictions/convnet"
            assert requests.put(url, data=image, timeout=PATIENCE).text == digit
        assert not (run / "java" / "org").exists()
        assert "Backend received inference" in (run / "logs" / "model_log.log").read_text()
    finally:
        make("stop", RUN=str(run))


def test_unknown_patch_is_named(tmp_path):
    """An unknown name starts nothing."""
    done = make("serve", RUN=str(tmp_path / "run"), PORT=str(free_port()), UNPATCHED="sockets")
    assert done.returncode != 0
    assert "error: UNPATCHED=sockets is not known; use greedy-batches, late-torch or socket\n" in done.stderr
