"""A checkout that can only be read: what is built already is served and asked from it."""

import requests

from tests.conftest import DIGITS, free_port, make
from tests.support.waiting import PATIENCE

# In a namespace of its own the folder is mounted anew, and every write to it fails, root's too.
READ_ONLY = (
    "unshare", "--map-root-user", "--mount", "sh", "-ec",
    'mount --bind . .; mount -o remount,ro,bind .; cd "$PWD"; ! touch written 2>/dev/null; exec "$@"', "sh",
)  # fmt: skip
TWO = "tests/images/2.png"


def test_read_only_checkout_serves_and_answers(checkout_in, tmp_path):
    """With RUN elsewhere; the archive is used as it is, and whether it is out of date is told."""
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
    assert done.stderr.startswith("note: model_store/convnet.mar is out of date and is used as it is; ")
    done = make("archive", cwd=copy, within=READ_ONLY)
    assert done.returncode != 0
    assert "Read-only file system; nothing was built" in done.stderr
