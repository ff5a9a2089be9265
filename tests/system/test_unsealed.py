"""Archives that were not sealed here, such as those of tutorials, are served only on request."""

import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest
import requests

from marctl.archive.mar import BadArchive
from marctl.serve.served_copies import Terms, take
from tests.conftest import DIGITS, free_port, make, marctl
from tests.support.flask_process import flask_of, refused
from tests.support.tutorial_archive import tutorial_archive
from tests.support.waiting import PATIENCE
from tests.system.test_foreground import healthcheck
from tests.system.test_served_copies import key as key  # noqa: PLC0414 a fixture
from tests.system.test_served_copies import public_of

pytestmark = pytest.mark.torchserve

UNPROVEN = "the files could not be verified, and no golden answer was checked"
REMEDY = "was not sealed by make archive; to serve it anyway: make serve SEALED=no"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """The tutorial's archive, made by the real archiver."""
    return tutorial_archive(tmp_path_factory.mktemp("foreign"))


def test_foreign_archive_answers(foreign, tmp_path):
    """On explicit request it starts, says what was not checked, and reads every digit."""
    run, port = str(tmp_path / "run"), free_port()
    try:
        done = make("serve", MARS=str(foreign), RUN=run, PORT=str(port), SEALED="no")
        assert done.returncode == 0, done.stderr
        assert f"  not sealed: {foreign}; {UNPROVEN}\n" in done.stdout
        for digit, image in DIGITS.items():
            url = f"http://127.0.0.1:{port}/predictions/digits"
            assert requests.put(url, data=image, timeout=PATIENCE).text == digit
        status = make("status", RUN=run)
        assert status.returncode == 0
        assert "digits 1.0: 2 of 2 workers ready, not sealed\n" in status.stdout
    finally:
        make("stop", RUN=run)


def test_foreign_archive_answers_without_a_server(foreign, tmp_path):
    """With `make predict`, an image that its handler fails on affects no other image."""
    for name in ("2", "7"):
        (tmp_path / f"{name}.png").write_bytes(DIGITS[name])
    assert make("predict", MAR=str(foreign), IMAGE=str(tmp_path / "2.png")).stdout == "2\n"
    (tmp_path / "bad.png").write_bytes(b"hello")
    done = make("predict", MAR=str(foreign), IMAGE=str(tmp_path / "bad.png"))
    assert done.returncode != 0
    assert f"error: {tmp_path / 'bad.png'}: its handler fails: UnidentifiedImageError: " in done.stderr
    assert "Traceback" not in done.stderr
    table = tmp_path / "answers.csv"
    make("predict", MAR=str(foreign), IMAGES=str(tmp_path / "*.png"), OUT=str(table))
    rows = [line.split(",")[:2] for line in table.read_text().splitlines()[1:]]
    assert [Path(image).stem for image, _ in rows] == ["2", "7", "bad"]
    assert [label for _, label in rows] == ["2", "7", ""]


def test_what_needs_this_projects_handler_says_so(foreign):
    """Exporting an unsealed archive gets one sentence with what can be done."""
    done = make("torchscript", MAR=str(foreign))
    assert done.returncode != 0
    assert done.stderr.startswith(f"error: the handler of {foreign} is not this project's")


def test_sealed_and_unsealed_archives_are_served_together(foreign, archive, tmp_path):
    """From two folders; only the unsealed one gets a note, and the sealed one is still checked."""
    run, port = str(tmp_path / "run"), free_port()
    try:
        done = marctl("serve", "--run", run, "--sealed", "no", "--port", str(port), archive, foreign)
        assert done.returncode == 0, done.stderr
        assert f"  not sealed: {foreign}; {UNPROVEN}\n" in done.stdout
        for name in ("convnet", "digits"):
            url = f"http://127.0.0.1:{port}/predictions/{name}"
            assert requests.put(url, data=DIGITS["4"], timeout=PATIENCE).text == "4"
        assert sorted(path.name for path in (tmp_path / "run" / "served").iterdir()) == [
            "convnet.mar", "digits.mar",
        ]  # fmt: skip
    finally:
        marctl("stop", "--run", run)


@pytest.mark.parametrize("sealed", ["", "yes"])
def test_foreign_archive_is_refused_by_default(foreign, tmp_path, sealed):
    """The error names the option; nothing was started, and nothing is left."""
    done = make("serve", MARS=str(foreign), RUN=str(tmp_path / "run"), PORT=str(free_port()), SEALED=sealed)
    assert done.returncode != 0
    assert f"error: {foreign} {REMEDY}\n" in done.stderr
    assert not (tmp_path / "run" / "logs").exists()
    assert not (tmp_path / "run" / "served").exists()


def test_unknown_word_is_named(foreign, tmp_path):
    """SEALED is a switch: any other value is refused."""
    done = make("serve", MARS=str(foreign), RUN=str(tmp_path / "run"), SEALED="maybe")
    assert "error: SEALED=maybe is not known; use SEALED=1 or SEALED=0" in done.stderr


def test_worker_that_dies_says_why(tmp_path):
    """An error in an unsealed archive's handler is printed, too."""
    bad = tutorial_archive(tmp_path / "bad", handler="import nonsense_of_mine\n")
    done = make("serve", MARS=str(bad), RUN=str(tmp_path / "run"), PORT=str(free_port()), SEALED="no")
    assert done.returncode != 0
    assert "error: a worker died while it loaded the model: ModuleNotFoundError" in done.stderr
    assert "nonsense_of_mine" in done.stderr


@pytest.mark.nginx
def test_foreign_archive_behind_the_front_door(foreign, tmp_path):
    """It is ready, described and replaced like others, and replaces others only on request."""
    run, port, door = str(tmp_path / "run"), free_port(), free_port()
    url = f"http://127.0.0.1:{door}"
    try:
        done = make("up", MARS=str(foreign), RUN=run, PORT=str(port), DOOR=str(door), SEALED="no")
        assert done.returncode == 0, done.stderr
        assert f"  not sealed: {foreign}; {UNPROVEN}\n" in done.stdout
        assert requests.put(f"{url}/predictions/digits", data=DIGITS["7"], timeout=PATIENCE).text == "7"
        assert requests.get(f"{url}/health/ready", timeout=PATIENCE).ok
        described = requests.get(f"{url}/v1/models/digits", timeout=PATIENCE).json()
        assert described == {"name": "digits", "ready": True}
        described = requests.get(f"{url}/v2/models/digits", timeout=PATIENCE).json()
        assert (described["versions"], described["inputs"], described["outputs"]) == (["1.0"], [], [])
        told = requests.get(f"{url}/page/served.json", timeout=PATIENCE).json()
        assert told == {"models": [{"name": "digits", "labels": []}]}
        checked = healthcheck(foreign, url)
        assert (checked.returncode, checked.stderr) == (0, "")
        by_accident = make("deploy", MARS=str(foreign), RUN=run)
        assert by_accident.returncode != 0
        assert f"error: {foreign} {REMEDY}\n" in by_accident.stderr
        done = make("deploy", MARS=str(foreign), RUN=run, SEALED="no")
        assert done.returncode == 0, done.stderr
        assert f"not sealed: {foreign}; {UNPROVEN}\n" in done.stdout
        assert requests.put(f"{url}/predictions/digits", data=DIGITS["7"], timeout=PATIENCE).text == "7"
    finally:
        make("stop", RUN=run)


def test_flask_says_that_it_needs_our_handler(foreign):
    """It is one sentence that names what can serve it."""
    assert refused(foreign) == f"error: {foreign} {REMEDY}"
    assert refused(foreign, "--sealed", "no") == (
        f"error: the handler of {foreign} is not this project's, so this command cannot use it; to answer "
        "images with it: make predict; to serve it: make serve SEALED=no; to convert it: make adopt"
    )


def test_flask_serves_our_handler_unsealed(archive, tmp_path):
    """The archive was unpacked and packed again, without its records."""
    plain = tmp_path / "convnet.mar"
    with zipfile.ZipFile(archive) as mar, zipfile.ZipFile(plain, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in mar.namelist():
            if name not in ("MAR-INF/SHA256SUMS", "golden.json", "provenance.json"):
                packed.writestr(name, mar.read(name))
    with flask_of(plain, "--sealed", "no") as running:
        assert f"  not sealed: {plain}; {UNPROVEN}\n" in running.printed
        url = f"{running.url}/predictions/convnet"
        assert requests.put(url, data=DIGITS["2"], timeout=PATIENCE).text == "2"


def rewritten(foreign, target, change):
    """Write the tutorial's archive again with additional content."""
    with zipfile.ZipFile(foreign) as mar, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for info in mar.infolist():
            new.writestr(info, mar.read(info))
        change(new)
    return target


def link(mar):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    mar.writestr(info, "/etc/passwd")


UNSAFE = {
    "up": (lambda mar: mar.writestr("../evil.py", "x"), "would be unpacked outside"),
    "absolute": (lambda mar: mar.writestr("/tmp/evil.py", "x"), "would be unpacked outside"),  # noqa: S108
    "link": (link, "is a link"),
    "twice": (lambda mar: mar.writestr("convnet.py", "x"), "is there 2 times"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", UNSAFE)
def test_what_could_be_unpacked_elsewhere_is_refused(foreign, tmp_path, name):
    """It is refused even with SEALED=no."""
    change, sentence = UNSAFE[name]
    mar = rewritten(foreign, tmp_path / "digits.mar", change)
    with pytest.raises(BadArchive, match=sentence):
        take([mar], tmp_path / "served", Terms(sealed=False))
    assert not (tmp_path / "served").exists()


def test_what_only_torchserve_would_find_is_not_unpacked(foreign, tmp_path):
    """TorchServe reads a zip from its start; the copy has only what the directory lists."""
    hidden = tmp_path / "hidden.zip"
    with zipfile.ZipFile(hidden, "w") as one:
        one.writestr("../hidden.py", "x")
        end = one.fp.tell()
    mar = tmp_path / "digits.mar"
    shutil.copy(foreign, mar)
    mar.write_bytes(hidden.read_bytes()[:end] + mar.read_bytes())
    [served] = take([mar], tmp_path / "served", Terms(sealed=False))
    assert b"hidden.py" not in served.file.read_bytes()
    with zipfile.ZipFile(served.file) as copy, zipfile.ZipFile(foreign) as before:
        assert {name: copy.read(name) for name in copy.namelist()} == {
            name: before.read(name) for name in before.namelist()
        }


def test_bomb_is_refused_before_it_is_unpacked(foreign, tmp_path, monkeypatch):
    """What does not fit on the disk is not written."""
    bomb = rewritten(foreign, tmp_path / "digits.mar", lambda mar: mar.writestr("large", bytes(2**20)))
    monkeypatch.setattr(
        "marctl.serve.served_copies.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 2**20)
    )
    with pytest.raises(BadArchive, match="has room for 1,048,576"):
        take([bomb], tmp_path / "served", Terms(sealed=False))


def test_what_says_that_it_was_sealed_is_held_to_it(archive, tmp_path):
    """SEALED=no accepts an archive without records, but not one that contradicts its own."""
    damaged = tmp_path / "convnet.mar"
    damaged.write_bytes(archive.read_bytes() + b"x")
    with pytest.raises(BadArchive, match="something is hidden in it"):
        take([damaged], tmp_path / "served", Terms(sealed=False))


def test_signature_of_what_was_not_sealed(foreign, key, tmp_path):
    """A required signature is checked as for any archive: only a signed one is accepted."""
    mar = tmp_path / "digits.mar"
    shutil.copy(foreign, mar)
    terms = Terms(public_of(key), sealed=False)
    with pytest.raises(BadArchive, match="has no signature"):
        take([mar], tmp_path / "served", terms)
    subprocess.run(
        ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", mar, "-out", f"{mar}.sig"], check=True
    )
    [served] = take([mar], tmp_path / "served", terms)
    assert not served.sealed
