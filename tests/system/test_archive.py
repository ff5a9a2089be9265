"""The archive is self-contained, and built only when an input has changed."""

import json
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from classifier import canonical
from marctl.archive.mar import BadArchive, read_manifest
from tests.conftest import DIGITS, make
from tests.support.rows import Engine

# Loads an unpacked archive with TorchServe's loader and prints the answer to an image.
LOAD_AND_ANSWER = """
import sys
from pathlib import Path
from ts.context import RequestProcessor
from ts.model_loader import TsModelLoader
folder, image = sys.argv[1:]
service = TsModelLoader().load("convnet", folder, "convnet_handler.py")
service.context.request_processor = [RequestProcessor({})]
print(service._entry_point([{"body": Path(image).read_bytes()}], service.context)[0])
"""


def without(archive, member, target):
    """Copy an archive, leaving out one member."""
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(target, "w") as part:
        for info in whole.infolist():
            if info.filename != member:
                part.writestr(info, whole.read(info))
    return target


def members(archive):
    with zipfile.ZipFile(archive) as mar:
        return set(mar.namelist())


def test_archive_runs_without_the_repository(archive, tmp_path):
    """A module left out of the archive fails here, not in a worker's log."""
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(archive) as mar:
        mar.extractall(unpacked)
    image = tmp_path / "image.png"
    image.write_bytes(DIGITS["9"])
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(unpacked)}
    command = [sys.executable, "-c", LOAD_AND_ANSWER, str(unpacked), str(image)]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "9"


@pytest.mark.parametrize(
    "module",
    ["classifier/image/decode.py", "classifier/contract.py", "classifier/protocols/body.py", "convnet.py"],
)
def test_missing_module_is_missed(archive, module, tmp_path):
    """A missing module is not taken from the repository, which these tests can import."""
    with pytest.raises(BadArchive, match=r"does not load: (ModuleNotFoundError|Altered: \S+ is missing)"):
        Engine(without(archive, module, tmp_path / "convnet.mar"))


def test_two_archives_run_side_by_side(archive, tmp_path):
    """Archives whose modules have the same names do not interfere, and leave no modules behind."""
    other = tmp_path / "other.mar"
    with zipfile.ZipFile(archive) as mar:
        members = {name: mar.read(name) for name in mar.namelist() if name != canonical.SUMS}
    members["model-config.yaml"] = members["model-config.yaml"].replace(b'labels: ["0"', b'labels: ["zero"')
    members["golden.json"] = members["golden.json"].replace(b'"label": "0"', b'"label": "zero"')
    with other.open("wb") as file:
        canonical.write(canonical.with_sums(members), 0, file)
    before = set(sys.modules), list(sys.path)
    with Engine(archive) as one, Engine(other) as two:
        assert one.predict([DIGITS["0"]])[0].body == "0"
        assert two.predict([DIGITS["0"]])[0].body == "zero"
        assert one.predict([DIGITS["0"]])[0].body == "0"
    assert not {name for name in set(sys.modules) - before[0] if name.startswith("archive_")}
    assert sys.path == before[1]


def test_labels_that_are_not_the_models_are_refused(archive, tmp_path):
    """A contract with nine labels for ten outputs fails to load, before any wrong answer."""
    with zipfile.ZipFile(archive) as mar, zipfile.ZipFile(tmp_path / "nine.mar", "w") as changed:
        for info in mar.infolist():
            data = mar.read(info)
            if info.filename == "model-config.yaml":
                data = data.replace(b'"8", "9"]', b'"8"]')
            changed.writestr(info, data)
    with pytest.raises(BadArchive, match=r"shape \(1, 10\) for one image, but model-config.yaml has 9"):
        Engine(tmp_path / "nine.mar")


@pytest.mark.parametrize(
    ("make_bad", "sentence"),
    [
        (lambda *_: None, "there is no archive"),
        (lambda path, _: path.write_bytes(b""), "is damaged"),
        (lambda path, _: path.write_bytes(b"PK\3\4 no zip at all"), "is damaged"),
        (lambda path, good: path.write_bytes(good.read_bytes()[:50_000]), "is damaged"),
        (lambda path, good: path.write_bytes(flipped(good.read_bytes())), "is damaged in convnet.pth"),
        (lambda path, good: without(good, "MAR-INF/MANIFEST.json", path), "it is not a model archive"),
        (lambda path, _: manifest_only(path, "{}"), "names no model, version and handler"),
        (lambda path, _: manifest_only(path, "no json"), "is damaged"),
    ],
    ids=["missing", "empty", "no-zip", "cut", "flipped", "no-manifest", "empty-manifest", "no-json"],
)
def test_bad_archive_is_refused(archive, tmp_path, make_bad, sentence):
    """Each kind of damage has its own sentence, with the remedy."""
    bad = tmp_path / "bad.mar"
    make_bad(bad, archive)
    with pytest.raises(BadArchive, match=sentence) as refused:
        read_manifest(bad)
    assert "make archive" in str(refused.value)


def test_any_flipped_bit_is_read_or_refused(archive, tmp_path):
    """Damage in a compressed archive raises BadArchive, or is where it does not matter."""
    packed = tmp_path / "packed.mar"
    with zipfile.ZipFile(archive) as mar, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as small:
        for name in ("MAR-INF/MANIFEST.json", "classifier/image/decode.py", "golden.json"):
            small.writestr(name, mar.read(name))
    data, refused = packed.read_bytes(), 0
    for position in range(0, len(data), 7):
        packed.write_bytes(data[:position] + bytes([data[position] ^ 8]) + data[position + 1 :])
        try:
            read_manifest(packed)
        except BadArchive:
            refused += 1
    assert refused > len(data) / 7 * 0.9


def test_model_that_does_not_fit_its_contract_is_refused(archive, tmp_path):
    """A contract with another size fails to load, and the error names the key."""
    with zipfile.ZipFile(archive) as mar, zipfile.ZipFile(tmp_path / "a.mar", "w") as changed:
        for info in mar.infolist():
            data = mar.read(info).replace(b"size: [28, 28]", b"size: [32, 32]")
            changed.writestr(info, data)
    with pytest.raises(BadArchive, match=r"does not accept one grayscale image of 32 x 32 .* input.size"):
        Engine(tmp_path / "a.mar")


def flipped(data):
    """Flip a byte of the weights, which are stored uncompressed."""
    at = data.index(b"convnet.pthPK") + 100_000
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def manifest_only(path, text):
    with zipfile.ZipFile(path, "w") as mar:
        mar.writestr("MAR-INF/MANIFEST.json", text)


@pytest.fixture
def checkout(tmp_path, checkout_in):
    """A function that creates another checkout, under a given name."""
    return lambda name: checkout_in(tmp_path / name)


def test_nothing_is_rebuilt_that_did_not_change(checkout):
    """`make archive` rebuilds for a changed input or VERSION, not for a newer file time."""
    copy = checkout("copy")
    mar = copy / "model_store" / "convnet.mar"
    assert make("archive", cwd=copy, RUNTIME="eager").returncode == 0  # remembered for the later builds
    built = mar.stat().st_mtime_ns
    (copy / "model" / "convnet.pth").touch()
    assert make("archive", cwd=copy).stdout == "model_store/convnet.mar is up to date\n"
    assert mar.stat().st_mtime_ns == built
    for name in (
        "handler/classifier/image/decode.py",
        "model/model-config.yaml",
        "src/marctl/build/model_card.py",
    ):
        with (copy / name).open("a") as file:
            file.write("# changed\n")
        make("archive", cwd=copy)
        assert mar.stat().st_mtime_ns > built, name
        built = mar.stat().st_mtime_ns
    make("archive", cwd=copy, VERSION="2.0")
    assert read_manifest(mar)["model"]["modelVersion"] == "2.0"


def test_parallel_builds_do_not_disturb_each_other(archive, checkout, tmp_path):
    """Four concurrent builds, in as many checkouts with one temporary folder, are all complete."""
    copies = [checkout(f"copy-{n}") for n in range(4)]
    shared = tmp_path / "shared"
    shared.mkdir()
    with ThreadPoolExecutor(len(copies)) as pool:
        builds = list(
            pool.map(lambda copy: make("archive", cwd=copy, RUNTIME="eager", TMPDIR=str(shared)), copies)
        )
    for copy, build in zip(copies, builds, strict=True):
        assert build.returncode == 0, build.stderr
        assert members(copy / "model_store" / "convnet.mar") == members(archive) - {"runtime.onnx"}


def test_manifest_says_what_is_inside(archive):
    """Every file that the manifest names is a member."""
    with zipfile.ZipFile(archive) as mar:
        model = json.loads(mar.read("MAR-INF/MANIFEST.json"))["model"]
    named = {model[key] for key in ("handler", "modelFile", "serializedFile", "configFile")}
    assert named <= members(archive)
