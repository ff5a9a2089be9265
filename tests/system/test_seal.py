"""The same inputs give the same archive, and an archive knows what it is."""

import hashlib
import json
import subprocess
import sys
import zipfile

import pytest
import requests

from classifier import canonical
from marctl.verify.verify import faults
from tests.conftest import IMAGES, ROOT, environment_in, make
from tests.support.rows import Engine
from tests.support.waiting import PATIENCE


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def origin(tmp_path_factory, checkout_in):
    """A repository with one commit, made at a known time, for others to clone."""
    folder = checkout_in(tmp_path_factory.mktemp("origin") / "origin")
    git(folder, "init", "-q", ".")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all")
    return folder


def build(origin, folder, **environ):
    """Clone, build, and return the archive's path and the output."""
    git(ROOT, "clone", "-q", str(origin), str(folder))
    environment_in(folder)
    done = make("archive", cwd=folder, **environ)
    assert done.returncode == 0, done.stderr
    return folder / "model_store" / "convnet.mar", done.stdout


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_two_builds_are_one_file(origin, tmp_path):
    """Another folder, time zone, language and hash seed: the same SHA-256, as printed."""
    one, printed = build(origin, tmp_path / "one")
    elsewhere = {"TZ": "Pacific/Auckland", "LC_ALL": "C", "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    two, _ = build(origin, tmp_path / "a" / "deeper" / "path", **elsewhere)
    assert sha256(one) == sha256(two)
    assert f"built convnet 1.0, {one.stat().st_size:,} bytes\n  sha256 {sha256(one)}" in printed


def test_time_comes_from_source_date_epoch(origin, tmp_path):
    """SOURCE_DATE_EPOCH, and nothing else, changes the time in the archive."""
    mar, _ = build(origin, tmp_path / "one", SOURCE_DATE_EPOCH="1000000000")
    with zipfile.ZipFile(mar) as opened:
        assert {info.date_time for info in opened.infolist()} == {(2001, 9, 9, 1, 46, 40)}
        assert json.loads(opened.read("MAR-INF/MANIFEST.json"))["createdOn"] == "09/09/2001 01:46:40"


def test_history_names_the_commit(origin, tmp_path):
    """The archive names the last commit that touched the model's files, and says if they differ."""
    commit = git(origin, "rev-parse", "HEAD").strip()
    mar, _ = build(origin, tmp_path / "one")
    assert provenance(mar)["source_commit"] == commit
    before = sha256(mar)
    for name, expected in (
        ("handler/classifier/image/decode.py", commit),  # the code is recorded as the tool's version
        ("model/model-config.yaml", f"{commit}-dirty"),
    ):
        with (tmp_path / "one" / name).open("a") as file:
            file.write("# changed\n")
        assert make("archive", cwd=tmp_path / "one").returncode == 0
        assert provenance(mar)["source_commit"] == expected
        assert sha256(mar) != before
        before = sha256(mar)


def provenance(mar):
    with zipfile.ZipFile(mar) as opened:
        return json.loads(opened.read("provenance.json"))


def test_sums_are_what_sha256sum_checks(archive, tmp_path):
    """The list of digests is in the format of sha256sum."""
    with zipfile.ZipFile(archive) as mar:
        mar.extractall(tmp_path)
    command = ["sha256sum", "--check", "--strict", "--quiet", canonical.SUMS]
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0


def test_unpacked_archive_knows_its_digest(archive, engine):
    """The digest of the file can be computed from its unpacked members."""
    assert canonical.check_unpacked(engine.folder) == sha256(archive)


def test_description_tells_the_history(server, archive):
    """customized=true returns digest, version, commit, figures, torch and contract."""
    url = f"{server.management}/models/convnet?customized=true"
    [described] = requests.get(url, timeout=PATIENCE).json()
    told = described["customizedMetadata"]
    assert told["archive_sha256"] == sha256(archive)
    assert told["provenance"] == provenance(archive)
    assert told["provenance"]["figures"]["test_accuracy"] >= 0.993
    assert {"version", "source_commit", "torch", "created"} <= told["provenance"].keys()
    assert told["contract"]["input"]["color"] == "grayscale"


def test_golden_answers_are_the_models(archive, engine):
    """The recorded labels match the images' names, and the outputs this process to 2e-5."""
    with zipfile.ZipFile(archive) as mar:
        images = json.loads(mar.read("golden.json"))["pictures"]
    assert {name: one["label"] for name, one in images.items()} == {name: name[0] for name in images}
    assert images.keys() == {file.name for file in IMAGES.iterdir()}
    outputs = engine.handler.outputs([(IMAGES / name).read_bytes() for name in images])
    for row, one in zip(outputs.tolist(), images.values(), strict=True):
        assert row == pytest.approx(one["outputs"], abs=2e-5)


def test_card_in_docs_is_the_archives(archive):
    """docs/model-card.md matches the card in the archive, but for commit and date."""
    with zipfile.ZipFile(archive) as mar:
        card = mar.read("model-card.md").decode().splitlines()
    shown = (ROOT / "docs" / "model-card.md").read_text().splitlines()
    assert [line for line in shown if "Source:" not in line] == [
        line for line in card if "Source:" not in line
    ]


def test_model_that_cannot_be_proven_is_refused(tmp_path, checkout_in):
    """Outputs too large for float32 to hold to the tolerance stop the build."""
    copy = checkout_in(tmp_path / "copy")
    model = copy / "model" / "convnet.py"
    model.write_text(model.read_text().replace("return F.log", "return 1e6 * F.log"))
    done = make("archive", cwd=copy)
    assert done.returncode != 0
    assert "its answers cannot be verified" in done.stderr
    assert not (copy / "model_store" / "convnet.mar").exists()


def test_engine_cleans_up(archive):
    """Closing the engine removes its unpacked files and its modules."""
    with Engine(archive) as opened:
        folder = opened.folder
        assert folder.exists()
    assert not folder.exists()
    assert sys.modules.get("convnet_handler") is None


def built(copy, **variables):
    """Build in a checkout; return the printed errors."""
    done = make("archive", cwd=copy, **variables)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


def test_bad_inputs_are_named(tmp_path, checkout_in):
    """Each file that cannot go into an archive is named, with what to do."""
    copy = checkout_in(tmp_path / "copy")
    (copy / "golden").mkdir()
    assert "has no images" in built(copy, GOLDEN="golden")
    (copy / "golden" / "a.png").write_bytes(b"hello")
    assert "the golden image a.png cannot be read: cannot read 5 bytes" in built(copy, GOLDEN="golden")
    (copy / "bad.yaml").write_text("input: [")
    assert "bad.yaml cannot be read: " in built(copy, CONFIG="bad.yaml")
    (copy / "bad.json").write_text("[1]")
    assert "are not a JSON object" in built(copy, FIGURES="bad.json")
    assert "SOURCE_DATE_EPOCH is 'soon'" in built(copy, SOURCE_DATE_EPOCH="soon")


def test_dotfiles_are_no_golden_images(tmp_path, checkout_in):
    """Hidden files that a file manager leaves in a folder are ignored."""
    copy = checkout_in(tmp_path / "copy")
    (copy / "tests" / "images" / ".DS_Store").write_bytes(b"x")
    assert make("archive", cwd=copy, RUNTIME="eager").returncode == 0


def test_weights_that_git_does_not_know_are_no_clean_commit(tmp_path, origin):
    """With ignored files in the archive, the commit alone does not describe it."""
    mar, _ = build(origin, tmp_path / "one")
    ignored = tmp_path / "one" / "training" / "mnist_data" / "train"
    ignored.mkdir()
    (ignored / "own.pth").write_bytes((ROOT / "model" / "convnet.pth").read_bytes())
    assert make("archive", cwd=tmp_path / "one", WEIGHTS="training/mnist_data/train/own.pth").returncode == 0
    assert provenance(mar)["source_commit"].endswith("-dirty")


def test_model_with_float32_tensors_of_its_own_is_archived(tmp_path, checkout_in):
    """If float64 cannot be computed, the float32 outputs are recorded."""
    copy = checkout_in(tmp_path / "copy")
    model = copy / "model" / "convnet.py"
    model.write_text(model.read_text().replace("dim=1)\n", "dim=1) @ torch.eye(10)\n"))
    assert make("archive", cwd=copy, RUNTIME="eager").returncode == 0
    assert faults(copy / "model_store" / "convnet.mar", run=True) == []
