"""Every kind of tampering is found, and reported in its own sentence."""

import hashlib
import io
import json
import pickle
import stat
import subprocess
import sys
import zipfile

import pytest
import torch

from classifier import canonical, golden
from marctl.archive.signing import sign
from marctl.sandbox import sandbox
from marctl.verify import proof
from marctl.verify.examination import examined
from marctl.verify.verify import described, faults
from model.convnet import ConvNet
from tests.conftest import make, marctl


class Members(dict):
    """An archive's members, by name, for tampering."""

    def __init__(self, archive):
        with zipfile.ZipFile(archive) as mar:
            super().__init__({info.filename: mar.read(info) for info in mar.infolist()})

    def flip(self, name, position=-10):
        """Flip one bit of a member."""
        data = bytearray(self[name])
        data[position] ^= 1
        self[name] = bytes(data)

    def seal(self):
        """Write the digests again, as a skilled attacker would."""
        del self[canonical.SUMS]
        self.update(canonical.with_sums(dict(self)))


def write(path, members, extra=()):
    """Write the archive as the builder does, or with additions, as any zip."""
    if not extra:
        with path.open("wb") as file:
            canonical.write(members, created_of(members), file)
        return path
    with zipfile.ZipFile(path, "w") as mar:
        for name, data in members.items():
            mar.writestr(name, data)
        for info, data in extra:
            mar.writestr(info, data)
    return path


def created_of(members):
    try:
        return json.loads(members["provenance.json"])["created"]
    except (KeyError, ValueError, TypeError):
        return 0


def swapped_weights(members):
    torch.manual_seed(0)
    file = io.BytesIO()
    torch.save(ConvNet().state_dict(), file)
    members["convnet.pth"] = file.getvalue()
    members.seal()


class RunsCode:
    """Prints when it is unpickled."""

    def __reduce__(self):
        return print, ("code was run",)


def hostile_pickle(name):
    def change(members):
        members[name] = pickle.dumps(RunsCode())
        members.seal()

    return change


def edited(name, old, new, *, sealed=True):
    def change(members):
        assert old in members[name]
        members[name] = members[name].replace(old, new)
        if sealed:
            members.seal()

    return change


def dropped(name, *, sealed=True):
    def change(members):
        del members[name]
        if sealed:
            members.seal()

    return change


def added(name, data=b"x"):
    def change(members):
        members[name] = data

    return change


def set_to(name, data):
    def change(members):
        members[name] = data
        members.seal()

    return change


def appended(name, code):
    def change(members):
        members[name] += code
        members.seal()

    return change


def digests_emptied(members):
    members[MODULE] += b"\nprint('code was run')\n"
    members[canonical.SUMS] = b""


def changed_and_not_recorded(members):
    members[MODULE] += b"\nprint('code was run')\n"


# One of the modules that every archive has.
MODULE = "classifier/image/decode.py"
UNFORMED = "is malformed; build the archive with: make archive"
TAMPERED = {
    "code-added": (changed_and_not_recorded, f"the member {MODULE} was changed"),
    "digests-emptied": (digests_emptied, f"the member {MODULE} was not there when the archive was built"),
    "digests-are-no-list": (added(canonical.SUMS, b"none"), "MAR-INF/SHA256SUMS is not a list of digests"),
    "exit": (appended(MODULE, b"\nimport sys; sys.exit(0)\n"), "it was run but gave no answer: "),
    "hard-exit": (appended(MODULE, b"\nimport os; os._exit(0)\n"), "it was run but gave no answer: "),
    "killed": (
        appended(MODULE, b"\nimport ctypes; ctypes.string_at(0)\n"),
        "it was run but gave no answer: its process exited with status",
    ),
    "golden-is-a-list": (set_to("golden.json", b"[]"), f"golden.json {UNFORMED}"),
    "golden-is-no-json": (set_to("golden.json", b"{"), f"golden.json {UNFORMED}"),
    "golden-is-empty": (set_to("golden.json", b'{"pictures": {}}'), f"golden.json {UNFORMED}"),
    "history-is-short": (set_to("provenance.json", b'{"created": 0}'), f"provenance.json {UNFORMED}"),
    "history-is-no-json": (set_to("provenance.json", b"\xff\xfe\x00"), f"provenance.json {UNFORMED}"),
    "deep-python": (
        appended("convnet.py", b"\nx=" + b"-" * 100_000 + b"1"),
        "convnet.py is not valid Python",
    ),
    "another-name": (set_to(f"./{MODULE}", b""), f"the member './{MODULE}' is another name for '{MODULE}'"),
    "name-that-leads-out": (
        edited("MAR-INF/MANIFEST.json", b'"convnet"', b'"../../x"'),
        "says '../../x'; use letters, digits",
    ),
    "one-byte-of-weights": (
        lambda m: m.flip("convnet.pth"),
        "the member convnet.pth was changed: its SHA-256 is",
    ),
    "one-byte-of-handler": (
        lambda m: m.flip("convnet_handler.py"),
        "the member convnet_handler.py was changed",
    ),
    "one-byte-of-contract": (
        lambda m: m.flip("model-config.yaml"),
        "the member model-config.yaml was changed",
    ),
    "version-in-manifest": (
        edited("MAR-INF/MANIFEST.json", b'"1.0"', b'"1.1"', sealed=False),
        "the member MAR-INF/MANIFEST.json was changed",
    ),
    "one-byte-of-golden": (lambda m: m.flip("golden/3.png"), "the member golden/3.png was changed"),
    "member-missing": (dropped(MODULE, sealed=False), f"the member {MODULE} is missing"),
    "member-added": (
        added("sitecustomize.py"),
        "the member sitecustomize.py was not there when the archive was",
    ),
    "weights-swapped": (
        swapped_weights,
        "its reference does not answer as recorded: golden image '0.png': expected '0' [",
    ),
    "constant-changed": (
        edited("model-config.yaml", b"0.1302", b"0.1307"),
        "it does not answer as recorded: golden image '0.png'",
    ),
    "labels-swapped": (
        edited("model-config.yaml", b'"0", "1"', b'"1", "0"'),
        "it does not answer as recorded: golden image '0.png': expected '0' ",
    ),
    "label-too-few": (edited("model-config.yaml", b'"8", "9"]', b'"8"]'), "does not load: BadContract: "),
    "code-changed": (
        edited("classifier/image/centring.py", b"BILINEAR", b"NEAREST"),
        "it does not answer as recorded: golden image '5-large.png': expected '5' [",
    ),
    "import-missing": (
        dropped(MODULE),
        "does not load: ModuleNotFoundError: No module named ",
    ),
    "handler-missing": (
        dropped("convnet_handler.py"),
        "the manifest names convnet_handler.py as its handler, but",
    ),
    "weights-missing": (dropped("convnet.pth"), "the manifest names convnet.pth as its serializedFile, but"),
    "golden-missing": (
        dropped("golden.json"),
        "golden.json is missing; build the archive with: make archive",
    ),
    "history-missing": (dropped("provenance.json"), "provenance.json is missing; build the archive"),
    "digests-missing": (
        dropped(canonical.SUMS, sealed=False),
        "MAR-INF/SHA256SUMS is missing; build the archive",
    ),
    "two-classes": (
        edited("convnet.py", b"class", b"class A: pass\nclass"),
        "convnet.py defines 2 classes (A, ",
    ),
    "no-python": (edited("convnet.py", b"class", b"klass"), "convnet.py is not valid Python"),
    "no-yaml": (set_to("model-config.yaml", b"input: ["), "model-config.yaml cannot be read: ParserError"),
    "no-labels": (edited("model-config.yaml", b"labels:", b"lables:"), "model-config.yaml cannot be read: "),
    "pickle-as-weights": (
        hostile_pickle("convnet.pth"),
        "convnet.pth cannot be loaded as weights only, so it",
    ),
    "pickle-elsewhere": (
        hostile_pickle("notes.txt"),
        "notes.txt cannot be loaded as weights only, so it could",
    ),
    "path-up": (
        added("../evil.py"),
        "the member '../evil.py' would be unpacked outside the archive's folder",
    ),
    "path-absolute": (added("/etc/evil.py"), "the member '/etc/evil.py' would be unpacked outside"),
}


# Examined in the sandbox, as the command does with all of them: one for each way in which that ends.
APART = {"code-added", "exit", "deep-python", "no-yaml", "pickle-as-weights"}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_named(archive, tmp_path, name, capfd, request):
    """Each change has its sentence; no unrecorded code is run, and no pickle."""
    if name not in APART:
        request.getfixturevalue("parsed_here")
    change, sentence = TAMPERED[name]
    members = Members(archive)
    change(members)
    found = faults(write(tmp_path / "convnet.mar", members), run=True)
    assert sentence in " | ".join(found)
    assert "code was run" not in capfd.readouterr().out


def test_twice_the_same_member_is_named(archive, tmp_path):
    """Of two members with one name, readers may use either."""
    members = Members(archive)
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = write(tmp_path / "a.mar", members, [(MODULE, members[MODULE])])
    assert f"the member {MODULE} occurs 2 times" in faults(twice)


def test_link_is_named(archive, tmp_path):
    """A link could point anywhere."""
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    found = faults(write(tmp_path / "a.mar", Members(archive), [(link, "/etc/passwd")]))
    assert "the member 'link' is a link; an archive may contain only files" in found


def with_hidden_member(archive, hidden):
    """Write an archive with a member that only stream readers, such as Java's, find."""
    with zipfile.ZipFile(archive) as mar:
        data, start = archive.read_bytes(), mar.start_dir
    evil = io.BytesIO()
    with zipfile.ZipFile(evil, "w") as other:
        other.writestr(MODULE, "print('code was run')")
    with zipfile.ZipFile(evil) as other:
        local = evil.getvalue()[: other.start_dir]
    # The directory moves down by the inserted bytes; the end record has its offset.
    end = data.rindex(b"PK\x05\x06")
    moved = data[end : end + 16] + (start + len(local)).to_bytes(4, "little") + data[end + 20 :]
    hidden.write_bytes(data[:start] + local + data[start:end] + moved)
    return hidden


def test_hidden_member_is_found(archive, tmp_path):
    """A member that is not in the directory leaves its bytes in the file."""
    [fault] = faults(with_hidden_member(archive, tmp_path / "hidden.mar"))
    assert fault.startswith("packing its members again gives a different file")


def test_bytes_before_the_archive_are_found(archive, tmp_path):
    """Python accepts a zip with bytes before it."""
    (tmp_path / "a.mar").write_bytes(b"#!/bin/sh\n" + archive.read_bytes())
    [fault] = faults(tmp_path / "a.mar")
    assert fault.startswith("packing its members again gives a different file")


def test_compressed_archive_is_refused_before_it_is_unpacked(archive, tmp_path):
    """A compressed member may be a bomb; a sealed archive has none."""
    with zipfile.ZipFile(tmp_path / "a.mar", "w", zipfile.ZIP_DEFLATED) as mar:
        for name, data in Members(archive).items():
            mar.writestr(name, data)
    [fault] = faults(tmp_path / "a.mar")
    assert "was repacked, or never sealed" in fault


def test_mismatch_is_told_by_numbers(archive, tmp_path):
    """The error has the image, the expected and the actual value."""
    members = Members(archive)
    swapped_weights(members)
    [fault] = faults(write(tmp_path / "a.mar", members), run=True)
    assert "golden image '0.png': expected '0' [-0.00236, " in fault
    assert "they differ by" in fault
    assert "at most 2e-05 is allowed" in fault


def test_tolerance_is_the_handlers():
    """Workers and verify, which does not import the handler, have the same tolerance."""
    assert proof.TOLERANCE == golden.TOLERANCE


def verify(*arguments, **environ):
    """Run marctl verify as a user would; return its result."""
    return marctl("verify", *arguments, **environ)


def test_without_a_key_it_only_looks(archive):
    """It reports what was checked, the missing signature and the mere claims, and never "sound"."""
    done = verify(archive)
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first == f"{archive} was examined, not run: its members match the records inside it"
    told = dict(line.strip().split(maxsplit=1) for line in lines if not line.startswith(" " * 5))
    assert told["signed"].startswith("no; whoever made it")
    assert told["golden"] == "11 images, not checked: RUN=1 runs the archive on them"
    assert "without proof" in told["claims"]
    assert told["name"] == "convnet 1.0"
    assert {"sha256", "members", "programs", "source", "runtime", "figures", "takes"} <= told.keys()
    assert "sound" not in done.stdout


def test_what_nobody_vouches_for_is_run_when_asked(archive):
    """It says that the archive was run, and what that does not show."""
    done = verify(archive, "--run")
    assert done.returncode == 0, done.stderr
    assert "was examined and run in isolation: 11 golden images answered as recorded\n" in done.stdout
    assert "malicious code can do that, too" in done.stdout
    assert ("note: its code" in done.stderr) == (sandbox.isolation_fault() is not None)


def test_make_verify_fails_for_a_bad_one(archive, tmp_path):
    """Every fault has a line, and the exit status is not zero."""
    members = Members(archive)
    members.flip("convnet.pth")
    members.flip(MODULE)
    bad = write(tmp_path / "bad.mar", members)
    done = make("verify", MAR=str(bad))
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert [line.split(" was changed")[0] for line in lines] == [
        f"error: {bad}: the member {name}" for name in (MODULE, "convnet.pth")
    ]


def test_verify_cannot_import_the_repository(tmp_path):
    """The process of make verify can find the model only in the archive."""
    code = (
        "import importlib.util, marctl.verify.verify;"
        "print([name for name in ('model', 'convnet') if importlib.util.find_spec(name)])"
    )
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_was_looked_at_is_what_is_described(archive, tmp_path):
    """Replacing a file after it was opened does not change the report."""
    mar = tmp_path / "a.mar"
    mar.write_bytes(archive.read_bytes())
    with examined(mar) as found:
        mar.write_bytes(b"another")
        lines = "\n".join(described(found, "a.mar", None))
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in lines


@pytest.fixture
def keys(tmp_path):
    """A key pair and another public key, made by openssl."""
    for name in ("private", "other"):
        command = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", f"{name}.pem"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        public = ["openssl", "pkey", "-in", f"{name}.pem", "-pubout", "-out", f"{name}-public.pem"]
        subprocess.run(public, cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def test_signature(archive, keys, tmp_path):
    """Signed with the key, it is verified and served; unsigned, signed with another or changed, refused."""
    mar = tmp_path / "convnet.mar"
    mar.write_bytes(archive.read_bytes())
    public = keys / "private-public.pem"
    [unsigned] = faults(mar, public)
    assert "has no signature" in unsigned
    sign(mar, keys / "private.pem")
    done = verify(mar, "--public-key", public)
    assert done.stdout.startswith(f"{mar} is signed by the key in {public}; 11 golden images answered as ")
    assert "there is a signature, which was not checked" in verify(mar).stdout
    [other] = faults(mar, keys / "other-public.pem")
    assert "does not match" in other
    mar.write_bytes(archive.read_bytes() + b"x")
    [changed] = faults(mar, public)
    assert "has changed since it was signed" in changed


def test_serve_refuses_a_wrong_signature(archive, keys, tmp_path):
    """`make serve PUBLIC_KEY=` starts nothing without a valid signature."""
    mar = tmp_path / "convnet.mar"
    mar.write_bytes(archive.read_bytes())
    done = make("serve", MARS=str(mar), RUN=str(tmp_path / "run"), PUBLIC_KEY=str(keys / "other-public.pem"))
    assert done.returncode != 0
    assert "has no signature" in done.stderr
    sign(mar, keys / "private.pem")
    done = make("serve", MARS=str(mar), RUN=str(tmp_path / "run"), PUBLIC_KEY=str(keys / "other-public.pem"))
    assert done.returncode != 0
    assert "does not match" in done.stderr
    assert not (tmp_path / "run" / "server.json").exists()


@pytest.mark.parametrize("content", [b"", b"no key", None], ids=["empty", "text", "missing"])
def test_bad_key_says_how_to_make_one(archive, tmp_path, content):
    """A file without a key is named, with the command that makes one."""
    if content is not None:
        (tmp_path / "key.pem").write_bytes(content)
    [fault] = faults(archive, tmp_path / "key.pem")
    assert "openssl genpkey -algorithm ed25519" in fault


def test_contract_may_name_one_of_several_classes(archive, tmp_path):
    """The archive is run, and the named class answers as recorded."""
    members = Members(archive)
    members["convnet.py"] = members["convnet.py"].replace(b"class", b"class A: pass\nclass", 1)
    members["model-config.yaml"] += b"\nclass: ConvNet\n"
    members.seal()
    assert faults(write(tmp_path / "named.mar", members), run=True) == []
