"""A read-only checkout can serve, and answer, with what is already built."""

import requests

from tests.conftest import DIGITS, free_port, make
from tests.support.waiting import PATIENCE

# In a separate namespace the folder is mounted read-only: every write to it fails, even root's.
READ_ONLY = (
    "unshare", "--map-root-user", "--mount", "sh", "-ec",
    'mount --bind . .; mount -o remount,ro,bind .; cd "$PWD"; ! touch written 2>/dev/null; exec "$@"', "sh",
)  # fmt: skip
TWO = "tests/images/2.png"


def test_read_only_checkout_serves_and_answers(checkout_in, tmp_path):
    """With RUN elsewhere, the archive is used as it is, with a note if it is out of date."""
    copy, run, port = checkout_in(tmp_path / "copy"), tmp_path / "run", free_port()
    assert make("archive", cwd=copy).returncode == 0
    done = make("predict", cwd=copy, within=READ_ONLY, IMAGE=TWO)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")
    done = make("serve", cwd=copy, within=READ_ONLY, RUN=str(run), PORT=str(port))
    try:
        assert (done.returncode, done.stderr) == (0, "")
        asked = requests.put(
            f"http://127.0.0.1:{port}/predictions/convnet", data=DIGITS["2"], timeout=PATIENCE
        )
        assert asked.text == "2"
    finally:
        assert make("stop", cwd=copy, within=READ_ONLY, RUN=str(run)).returncode == 0

    with (copy / "model" / "model-config.yaml").open("a") as file:
        file.write("# changed\n")
    done = make("predict", cwd=copy, within=READ_ONLY, IMAGE=TWO)
    assert (done.returncode, done.stdout) == (0, "2\n")
    assert done.stderr.startswith("note: model_store/convnet.mar is out of date but is used as it is: ")
    done = make("archive", cwd=copy, within=READ_ONLY)
    assert done.returncode != 0
    assert "Read-only file system; nothing was built" in done.stderr
