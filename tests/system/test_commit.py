"""An archive's digest never changes silently, whatever git can report."""

import zipfile
from json import loads

from marctl.build.commit import UNKNOWN
from tests.conftest import make
from tests.unit.marctl.build.test_commit import DISTRUST, git


def test_digest_never_changes_in_silence(checkout_in, tmp_path):
    """Without git's history an archive is not rebuilt; a new one without a commit is announced."""
    copy = checkout_in(tmp_path / "copy")
    for command in (["init", "-q", "."], ["add", "-A"], ["commit", "-qm", "all"]):
        git(copy, *command)
    mar = copy / "model_store" / "convnet.mar"
    assert make("archive", cwd=copy).returncode == 0
    built = mar.read_bytes()
    done = make("archive", cwd=copy, **dict([DISTRUST]))
    assert (done.stdout, done.stderr) == ("model_store/convnet.mar is up to date\n", "")
    assert mar.read_bytes() == built

    with (copy / "model" / "model-config.yaml").open("a") as file:
        file.write("# changed\n")
    done = make("archive", cwd=copy, **dict([DISTRUST]))
    assert done.returncode == 0
    assert done.stderr.startswith(
        "note: the archive will not name its commit, so its digest differs from a build that does: "
        f"git does not trust {copy}, which belongs to another user"
    )
    with zipfile.ZipFile(mar) as opened:
        assert loads(opened.read("provenance.json"))["source_commit"] == UNKNOWN
    # Once git works again, the commit is recorded again.
    assert make("archive", cwd=copy).returncode == 0
    with zipfile.ZipFile(mar) as opened:
        assert loads(opened.read("provenance.json"))["source_commit"].endswith("-dirty")
