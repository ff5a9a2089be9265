"""Archives with forged records: what they say is reported as claims, and their code runs isolated."""

import io
import json
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import warnings
import zipfile
import zlib

import psutil
import pytest
import torch
import yaml

from marctl import cli
from marctl.archive.bounded_zip import MOST_LISTED
from marctl.archive.mar import BadArchive, known_answer, read_manifest
from marctl.archive.members import check_members
from marctl.archive.opened import LOADING
from marctl.predict import batch
from marctl.printable import printable
from marctl.sandbox import sandbox
from marctl.verify.verify import faults
from tests.conftest import DIGITS, ROOT
from tests.support.rows import Engine
from tests.system.test_verify import Members, verify, write

# A handler in TorchServe's form that does anything it likes; the reported fault has what it raises.
HANDLER = """
import glob, json, os, socket, subprocess, sys, threading, time
class Handler:
    def initialize(self, context):
        {}
    def handle(self, data, context):
        pass
    eager = None
    classifier = property(lambda self: self)
    def preprocess(self, batch): return batch
    def inference(self, batch): return {}
"""


def extended(archive, more):
    """Return the archive's members with additional ones, and matching records."""
    members = Members(archive)
    members.update(more)
    members.seal()
    return members


def with_handler(archive, path, initialize="pass", inference="[]"):
    """Write the archive with a hostile handler and matching records."""
    members = Members(archive)
    members["convnet_handler.py"] = HANDLER.format(initialize, inference).encode()
    members.seal()
    return write(path, members)


def fault_of(archive, tmp_path, initialize="pass", inference="[]"):
    [fault] = faults(with_handler(archive, tmp_path / "convnet.mar", initialize, inference), run=True)
    return fault


def test_looking_runs_nothing(archive, tmp_path):
    """An archive that does not even load can be examined; it runs only on request."""
    mar = with_handler(archive, tmp_path / "convnet.mar", "raise RuntimeError('it ran')")
    assert faults(mar) == []
    assert faults(mar, run=True) == ["does not load: RuntimeError: it ran"]


SEEN = """raise RuntimeError(json.dumps({
            "environ": sorted(os.environ), "folder": sorted(os.listdir(".")),
            "records": subprocess.run(FIND, capture_output=True, text=True).stdout.split(),
            "args": [open(p, "rb").read().decode() for p in glob.glob("/proc/[0-9]*/cmdline")],
            "secret": os.path.exists(PLACE),
            "reached": not socket.socket().connect_ex(("127.0.0.1", PORT)),
            "writable": [p for p in WRITTEN if os.access(p, os.W_OK)],
        }))"""


FIND = "find / ( -path /proc -o -path /sys ) -prune -o ( -name golden.json -o -name SHA256SUMS ) -print"


def test_what_is_run_reaches_nothing(archive, tmp_path, monkeypatch):
    """It has no network, environment, user files or records, where the kernel allows that."""
    monkeypatch.setenv("SECRET", "secret")
    (tmp_path / "secret").write_text("secret")
    written = ["/", "/usr", "/etc", "/proc/sys/kernel", str(ROOT), str(tmp_path), os.path.expanduser("~")]  # noqa: PTH111
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = SEEN.replace("PLACE", repr(str(tmp_path / "secret"))).replace("WRITTEN", repr(written))
        code = code.replace("FIND", repr(FIND.split())).replace("PORT", str(server.getsockname()[1]))
        fault = fault_of(archive, tmp_path, code)
    seen = json.loads(fault.partition("RuntimeError: ")[2])
    assert "SECRET" not in seen["environ"]
    assert len(seen["environ"]) < 9
    assert seen["folder"] == []
    assert not [argument for argument in seen["args"] if "convnet.mar" in argument]
    if sandbox.isolation_fault() is None:
        assert seen["records"] == []
        assert not seen["secret"]
        assert not seen["reached"]
        assert seen["writable"] == []


FORGED = {
    "word-of-argv": "print(sys.argv[-1], flush=True); os._exit(0)",
    "echoed-records": "print(open('/sandbox/archive/golden.json').read()); os._exit(0)",
    "every-open-file": "[os.write(fd, b'[[0.0]]') for fd in range(1, 9) if FD]; os._exit(0)".replace(
        "FD", "os.path.exists(f'/proc/self/fd/{fd}')"
    ),
    "exit": "sys.exit(0)",
}


@pytest.mark.parametrize("name", FORGED)
def test_word_of_its_own_proves_nothing(archive, tmp_path, name):
    """Its output text and exit status do not count, only outputs compared in another process."""
    assert fault_of(archive, tmp_path, FORGED[name]).startswith(("it was run but gave no", "does not load"))


@pytest.mark.parametrize(
    ("inference", "sentence"),
    [
        ("[[0.0] * 10] * len(batch)", "it does not answer as recorded: golden image '0.png': expected '0' "),
        ("[[float('nan')] * 10] * len(batch)", "does not answer the golden image '0.png' with 10 numbers"),
        ("[[float('inf')] * 10] * len(batch)", "it does not answer as recorded"),
        ("[[0.0] * 9] * len(batch)", "does not answer the golden image '0.png' with 10 numbers"),
        ("[[0.0] * 10]", "it does not answer every golden image"),
        ("7", "does not load: TypeError: "),
    ],
    ids=["zeros", "nan", "infinite", "short", "few", "no-list"],
)
def test_outputs_are_compared_outside(archive, tmp_path, inference, sentence):
    """Its outputs are compared with the recorded ones, value by value."""
    assert sentence in fault_of(archive, tmp_path, inference=inference)


def test_flood_is_ended(archive, tmp_path):
    """Endless output is not read endlessly."""
    code = "\n        while True: [os.write(fd, b'x' * 65536) for fd in (3, 2)]"
    assert "it answered more than 8,388,608 bytes" in fault_of(archive, tmp_path, code)


def test_memory_is_bounded(archive, tmp_path):
    """It cannot allocate more memory than a model needs."""
    assert "MemoryError" in fault_of(archive, tmp_path, "bytearray(16 * 2**30)")


def test_all_that_it_started_ends(archive, tmp_path, monkeypatch):
    """After the time limit it is killed, with all processes it started in other sessions."""
    monkeypatch.setattr(sandbox, "SECONDS", 10.0)
    monkeypatch.setattr(sandbox, "BYTES_A_SECOND", 2**40)
    mark = f"600.{os.getpid()}"
    code = "subprocess.Popen(['sleep', 'MARK'], start_new_session=True); time.sleep(600)"
    fault = fault_of(archive, tmp_path, code.replace("MARK", mark))
    assert "it did not end within 10 s" in fault
    if sandbox.isolation_fault() is None:
        assert not [p for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or ())]


def test_yaml_that_grows_is_ended(archive, tmp_path, monkeypatch):
    """A few lines that expand to gigabytes cost time and memory only in the isolated process."""
    monkeypatch.setattr(sandbox, "SECONDS", 10.0)
    monkeypatch.setattr(sandbox, "BYTES_A_SECOND", 2**40)
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    members = Members(archive)
    members["model-config.yaml"] = "\n".join(lines).encode()
    members.seal()
    [fault] = faults(write(tmp_path / "a.mar", members))
    assert "it did not end within" in fault or "MemoryError" in fault


def test_without_namespaces_it_is_said(archive):
    """If the kernel has none, a note says what the code can reach, and the checks are still done."""
    code = (
        "import sys; from marctl.cli import main; from marctl.sandbox import sandbox;"
        "sandbox.isolation_fault = lambda: 'it is not allowed';"
        f"sys.exit(main(['verify', {str(archive)!r}, '--run']))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "note: its code runs with limits, but can reach your files and the network" in done.stderr
    assert "11 golden images answered as recorded" in done.stdout


def with_provenance(archive, path, **changes):
    members = Members(archive)
    told = json.loads(members["provenance.json"]) | changes
    members["provenance.json"] = json.dumps(told).encode()
    members.seal()
    return write(path, members)


UNFORMED = "provenance.json is malformed"
LIES = {
    "version": ({"version": "9.9"}, "provenance.json says version '9.9', but the manifest says '1.0'"),
    "name": ({"name": "other"}, "provenance.json says name 'other', but the manifest says 'convnet'"),
    "other-runtime": ({"runtime": "eager"}, "there is a member runtime.onnx, but provenance.json says"),
    "no-such-member": ({"runtime": "aoti"}, "runtime aoti, but there is no member runtime.pt2"),
    "unknown-runtime": (
        {"runtime": "onnx\n  signed    yes, by the key of the bank"},
        r"says runtime 'onnx\n signed yes, by the key of the bank'; known runtimes are eager",
    ),
    "commit-with-escapes": ({"source_commit": "\x1b[1A" + "0" * 40}, UNFORMED),
    "short-commit": ({"source_commit": "eedfac9"}, UNFORMED),
    "commit-and-more": ({"source_commit": "0" * 40 + "\n"}, UNFORMED),
    "torch": ({"torch": "2.14 \x1b[2K"}, UNFORMED),
    "time": ({"created": True}, UNFORMED),
    "part-of-a-second": ({"created": 1.5}, UNFORMED),
}


@pytest.mark.usefixtures("parsed_here")
@pytest.mark.parametrize("name", LIES)
def test_claim_that_is_contradicted_is_a_fault(archive, tmp_path, name):
    """Claims are compared with manifest and members where possible; the others must be well-formed."""
    changes, sentence = LIES[name]
    found = faults(with_provenance(archive, tmp_path / "convnet.mar", **changes))
    assert sentence in " | ".join(found)
    assert all(line.isprintable() for line in found)


ESCAPES = "\x1b[2K\r\x9b1A\u202egnab\u200b\u2028\ufeff\u3164"


def test_nothing_of_an_archive_reaches_the_terminal(archive, tmp_path):
    """Escapes in figures, inputs and member names are shown as numbers, in any archive."""
    figures = {f"accuracy{ESCAPES}": f"0.99{ESCAPES}", "long": "x" * 5000, "nested": {"a": [1]}}
    mar = with_provenance(archive, tmp_path / f"a{ESCAPES.replace('/', '')}.mar", figures=figures)
    done = verify(mar)
    assert done.returncode == 0, done.stderr
    assert r"accuracy\x1b[2K\r\x9b1A\u202egnab\u200b\u2028\ufeff\u3164" in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 400
    members = Members(archive) | {f"b{ESCAPES}.py": b"x"}
    done_badly = verify(write(mar, members))
    assert r"the member b\x1b[2K" in done_badly.stderr
    for line in (done.stdout + done_badly.stderr).split("\n"):
        assert line.isprintable()
        assert "\u3164" not in line


FORGERY = "  signed    by the key in bank.pem"
PADDED = {
    "spaces": "ink" + " " * 56 + FORGERY,
    "line-feeds": "ink" + "\n" * 56 + FORGERY,
    "wide": "猫" * 29 + FORGERY,
    "ambiguous": "ж" * 55 + FORGERY,
    "long-word": "x" * 55 + FORGERY,
}


@pytest.mark.parametrize("name", PADDED)
def test_no_claim_begins_like_a_line_of_verifys_own(archive, tmp_path, name):
    """On any terminal, lines are short enough, and those of claims are indented further."""
    text = PADDED[name]
    members = Members(archive)
    told = json.loads(members["provenance.json"])
    told["figures"] = {text: 1, "accuracy": text, **{f"{number}{text}": number for number in range(5)}}
    members["provenance.json"] = json.dumps(told).encode()
    config = yaml.safe_load(members["model-config.yaml"])
    config["input"] |= {text: text}
    members["model-config.yaml"] = yaml.safe_dump(config).encode()
    members.seal()
    done = verify(write(tmp_path / "a.mar", members))
    assert done.returncode == 0, done.stderr
    first = next(n for n, line in enumerate(done.stdout.splitlines()) if line.startswith("  claims"))
    for line in done.stdout.splitlines()[first + 1 :]:
        assert line.startswith(
            ("    name ", "    source ", "    torch ", "    runtime ", "    figures ", "    takes ", " " * 14)
        )
        assert sum(2 if ord(sign) > 127 else 1 for sign in line) <= 80
        assert "signed   " not in line


def test_faults_have_no_columns(archive, tmp_path):
    """Text quoted from an archive cannot be padded to start a new line on the terminal."""
    members = Members(archive) | {f"b{' ' * 56}{FORGERY}.py": b"x"}
    done = verify(write(tmp_path / "a.mar", members))
    assert "the member b signed by the key in bank.pem.py was not there" in done.stderr


@pytest.mark.parametrize("name", [f"a{ESCAPES}", "a\u3164", "a" * 101], ids=["escapes", "filler", "long"])
def test_errors_of_an_archive_are_printable(tmp_path, name):
    """Whatever the manifest contains, every program prints the same escaped sentence."""
    told = {"model": {"modelName": name, "modelVersion": "1", "handler": "h.py"}}
    with zipfile.ZipFile(tmp_path / "a.mar", "w") as mar:
        mar.writestr("MAR-INF/MANIFEST.json", json.dumps(told))
    with pytest.raises(BadArchive) as refused:
        read_manifest(tmp_path / "a.mar")
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("text", ["Größe", "कुत्ता", "猫 1", "a\\b", "-", "😀"])
def test_what_prints_stays(text):
    """Labels in all languages are shown unchanged."""
    assert printable(text) == text


class Writes(torch.nn.Module):
    """A TorchScript module that writes a file."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Write to the place that the test checks."""
        written = torch.from_file("torchscript-wrote", True, 4)
        written.fill_(65.0)
        return x


@pytest.fixture(scope="module")
def program():
    """TorchScript that writes a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = io.BytesIO()
        torch.jit.save(torch.jit.script(Writes()), file)
    return file.getvalue()


def dressed(code=b""):
    """Return a hostile pickle disguised as TorchScript."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("a/data.pkl", b"cbuiltins\nprint\n(S'code was run'\ntR.")
        packed.writestr("a/code/x.py", code)
        packed.writestr("a/version", b"3\n")
        packed.writestr("a/byteorder", b"little")
    return file.getvalue()


PROGRAM = "is TorchScript, which is a program, but the archive does not declare it"


@pytest.mark.usefixtures("parsed_here")
@pytest.mark.parametrize("name", ["extra.pt", "notes.txt", "golden/0.pt", "runtime.pt2.txt", "a/b.bin"])
def test_torchscript_that_nothing_names_is_refused(archive, tmp_path, program, name):
    """It is refused under any name, in any folder."""
    members = extended(archive, {name: program})
    assert faults(write(tmp_path / "convnet.mar", members)) == [f"{name} {PROGRAM}"]


@pytest.mark.usefixtures("parsed_here")
def test_torchscript_behind_other_bytes_is_refused(archive, tmp_path, program):
    """Readers of a zip find its directory at the end."""
    members = extended(archive, {"notes.txt": b"notes\n" + program})
    assert faults(write(tmp_path / "convnet.mar", members)) == [f"notes.txt {PROGRAM}"]


def safetensors(header=b"{}"):
    return len(header).to_bytes(8, "little") + header


class Prints:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return print, ("code was run",)


CALL = b"cos\nsystem\n(S'true'\ntR."
UNNAMED = {
    "bytecode": ("handler.pyc", b"\xa7\r\r\n" + bytes(12), "is compiled Python"),
    "cached": ("__pycache__/convnet.cpython-311.pyc", b"x", "is compiled Python"),
    "optimised": ("a.PYO", b"x", "is compiled Python"),
    "library": ("a.dll", b"MZ", "is machine code"),
    "no-safetensors": ("a.safetensors", b"x" * 100, "has no safetensors header"),
    "short-safetensors": ("a.safetensors", b"", "has no safetensors header"),
    "list-safetensors": ("a.safetensors", safetensors(b"[]"), "has no safetensors header"),
    "pickle-safetensors": ("a.safetensors", pickle.dumps(Prints()), "has no safetensors header"),
    "text": ("notes.txt", CALL, "is a pickle that calls what it names"),
    "no-stop": ("data", CALL[:-1] + b"\xff", "is a pickle that calls what it names"),
    "protocol-0": ("data", pickle.dumps(Prints(), 0), "is a pickle that calls what it names"),
    "protocol-1": ("data.json", pickle.dumps(Prints(), 1), "is a pickle that calls what it names"),
    "second": ("data", pickle.dumps([1], 0) + CALL, "is a pickle that calls what it names"),
    "instance": ("data", b"(S'true'\nios\nsystem\n.", "is a pickle that calls what it names"),
    "object": ("data", b"(cos\nsystem\nS'true'\no.", "is a pickle that calls what it names"),
    "old": ("data", b"c__builtin__\neval\n(S'1'\ntR.", "is a pickle that calls what it names"),
    "members": ("data", b"cconvnet_handler\nf\n(tR.", "is a pickle that calls what it names"),
    "attribute": ("data", b"csys\npath\n(S'x'\ne.", "is a pickle that calls what it names"),
    "new": ("data", b"csubprocess\nPopen\n(S'true'\nt\x81.", "is a pickle that calls what it names"),
}
KEPT = {
    "animals": ("labels.txt", b"cat\ndog\ncow\npig\nbird\n"),
    "functions": ("notes.txt", b"cos\nsin\ntan\n"),
    "source": ("notes.md", b"class Foo:\n  pass\nReturn\n"),
    "dots": ("dots", b"...\n"),
    "numbers": ("n.pickled", pickle.dumps([1, "a"], 0)),
    "empty": ("nothing", b""),
    "safetensors": ("a.safetensors", safetensors(b'{"a":' + b" " * 500 + b"{}}")),
    # Its length prefix looks like a pickle's protocol.
    "safetensors-640": ("a.safetensors", safetensors(b"{}" + b" " * 638)),
}


@pytest.mark.usefixtures("parsed_here")
@pytest.mark.parametrize("name", UNNAMED)
def test_program_under_any_name_is_refused(archive, tmp_path, name, capfd):
    """Bytecode, libraries, and pickles without a mark at the start are refused."""
    member, data, sentence = UNNAMED[name]
    [fault] = faults(write(tmp_path / "convnet.mar", extended(archive, {member: data})))
    assert fault.startswith(f"{member} {sentence}")
    assert "code was run" not in capfd.readouterr().out


@pytest.mark.usefixtures("parsed_here")
def test_what_only_looks_like_a_program_stays(archive, tmp_path):
    """Texts that could start a pickle, pickles of plain values, and safetensors are accepted."""
    for name, (member, data) in KEPT.items():
        assert faults(write(tmp_path / f"{name}.mar", extended(archive, {member: data}))) == [], name


@pytest.mark.usefixtures("parsed_here")
@pytest.mark.parametrize("value", ["!!int ''", "!!timestamp foo", "!!bool zz", "!!float x", "!!binary [a]"])
def test_config_that_the_loader_chokes_on_gets_a_sentence(archive, tmp_path, value):
    """Whatever the loader raises, no traceback is shown."""
    members = Members(archive)
    members["model-config.yaml"] = f"a: {value}".encode()
    members.seal()
    [fault] = faults(write(tmp_path / "a.mar", members))
    assert fault.startswith("model-config.yaml cannot be read: ")
    assert "Traceback" not in fault
    assert "File" not in fault


@pytest.mark.usefixtures("parsed_here")
def test_number_of_thousands_of_digits_is_left_out(archive, tmp_path):
    """JSON and verify's output omit it as a value; as a key it is refused."""
    members = Members(archive)
    config = members["model-config.yaml"].decode()
    digits = "0x" + "f" * 6000
    members["model-config.yaml"] = config.replace(
        "input:", f"input:\n  a: {digits}\n  b: [{digits}]", 1
    ).encode()
    members.seal()
    assert faults(write(tmp_path / "a.mar", members)) == []
    members["model-config.yaml"] = config.replace("input:", f"input:\n  ? {digits}\n  : 1", 1).encode()
    members.seal()
    [fault] = faults(write(tmp_path / "a.mar", members))
    assert fault.startswith("model-config.yaml cannot be read: ValueError: ")


@pytest.mark.usefixtures("parsed_here")
def test_second_runtime_is_refused(archive, tmp_path, program):
    """Of two members that could answer, one is not the one that the archive names."""
    members = extended(archive, {"runtime.pt": program})
    [fault] = faults(write(tmp_path / "convnet.mar", members))
    assert fault == "there is a member runtime.pt, but provenance.json says runtime onnx"


@pytest.mark.usefixtures("parsed_here")
@pytest.mark.parametrize("name", ["convnet.pth", "extra.pt", "data.bin"])
def test_pickle_in_torchscripts_clothes_is_refused(archive, tmp_path, name, capfd):
    """A member name with /code/ makes a pickle neither a program nor weights."""
    members = extended(archive, {name: dressed()})
    [fault] = faults(write(tmp_path / "convnet.mar", members))
    assert fault.startswith(f"{name} cannot be loaded as weights only, so it could run code")
    assert "code was run" not in capfd.readouterr().out


def test_declared_torchscript_is_called_a_program(archive, tmp_path, program):
    """An archive with TorchScript says so, and a fake TorchScript is refused."""
    members = Members(archive)
    del members["runtime.onnx"]
    told = json.loads(members["provenance.json"]) | {"runtime": "torchscript"}
    members.update({"provenance.json": json.dumps(told).encode(), "runtime.pt": program})
    members.seal()
    done = verify(write(tmp_path / "convnet.mar", members))
    assert "runtime.pt (TorchScript); they run when it is served" in " ".join(done.stdout.split())
    members["runtime.pt"] = dressed()
    members.seal()
    [fault] = faults(write(tmp_path / "convnet.mar", members))
    assert fault == "runtime.pt would be loaded as TorchScript, but is not TorchScript"


@pytest.mark.parametrize("variable", LOADING)
def test_environment_lets_no_pickle_run(archive, tmp_path, monkeypatch, variable, capfd):
    """No environment variable lets torch run a pickle's code."""
    monkeypatch.setenv(variable, "1")
    members = Members(archive) | {"convnet.pth": dressed()}
    del members["runtime.onnx"]
    mar = write(tmp_path / "convnet.mar", members)
    with pytest.raises(BadArchive):
        Engine(mar)
    assert "code was run" not in capfd.readouterr().out
    assert variable not in os.environ


def overlapping(archive, path, count=400, size=6_000_000):
    """Write the archive with overlapping members: a file of 8 MB that lists gigabytes."""
    with zipfile.ZipFile(path, "w") as mar:
        for name, data in Members(archive).items():
            mar.writestr(name, data)
        start, tail, infos = mar.start_dir, b"x" * size, []
        for number in range(count):
            info = zipfile.ZipInfo(f"b{number:04d}")
            info.file_size = info.compress_size = len(tail)
            info.CRC = zlib.crc32(tail)
            tail = info.FileHeader(zip64=False) + tail
            infos.insert(0, info)
        at = start
        for info in infos:
            info.header_offset = at
            at += len(info.FileHeader(zip64=False))
        mar.filelist += infos
        mar.fp.seek(start)
        mar.fp.write(tail)
        mar.start_dir = start + len(tail)
        mar._didModify = True
    return path


def inflating(archive, path, size=2**29):
    """Write the archive, compressed, with a member that expands to half a gigabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as mar:
        for name, data in Members(archive).items():
            mar.writestr(name, data)
        with mar.open("zeros", "w") as zeros:
            for _ in range(size // 2**20):
                zeros.write(bytes(2**20))
    return path


def listing_much(archive, path):
    """Write the archive with a long list of members."""
    with zipfile.ZipFile(path, "w") as mar:
        for name, data in Members(archive).items():
            mar.writestr(name, data)
        for number in range(MOST_LISTED // 60):
            mar.writestr(f"{number:060d}", b"")
    return path


READERS = {
    "verify": lambda mar: [BadArchive(fault) for fault in faults(mar)],
    "check-members": check_members,
    "manifest": read_manifest,
    "known-answer": known_answer,
    "engine": Engine,
}
BOMBS = {
    "overlapping": (overlapping, "is damaged (its members take 2,4"),
    "inflating": (inflating, "is damaged (it unpacks to 53"),
    "listing-much": (listing_much, "is damaged (its list of members has 1,"),
}


@pytest.fixture(scope="module")
def bombs(archive, tmp_path_factory):
    """Small files that take much memory, disk or time if they are simply read."""
    folder = tmp_path_factory.mktemp("bombs")
    return {name: build(archive, folder / f"{name}.mar") for name, (build, _) in BOMBS.items()}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("reader", READERS)
def test_bomb_is_refused_before_it_is_read(bombs, bomb, reader):
    """Every reader gives the same error."""
    try:
        [refused] = READERS[reader](bombs[bomb]) or []
    except BadArchive as error:
        refused = error
    assert BOMBS[bomb][1] in str(refused)


def most_memory_of_check_members(mar):
    """Return the peak memory of check_members in a separate process, in KB."""
    code = (
        "import re, sys; from pathlib import Path\n"
        "from marctl.archive.mar import BadArchive; from marctl.archive import members\n"
        "try: members.check_members(Path(sys.argv[1]))\n"
        "except BadArchive: pass\n"
        # Not getrusage's value: that starts at the memory of the parent process.
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
    )
    command = [sys.executable, "-c", code, str(mar)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_bomb_costs_no_memory(bombs):
    """Only its directory is read; reading its members took 4,600 MB."""
    assert most_memory_of_check_members(bombs["overlapping"]) < 100_000


def test_members_are_read_one_at_a_time(archive, tmp_path):
    """A valid 200 MB archive of large members takes the memory of one, read and compared."""
    members = extended(archive, {f"data/{number}.txt": bytes([number]) * 2**24 for number in range(1, 13)})
    mar = write(tmp_path / "large.mar", members)
    check_members(mar)
    assert most_memory_of_check_members(mar) < 120_000


def test_batch_answers_by_the_archive_that_it_opened(archive, tmp_path, monkeypatch):
    """The processes do not open a file that replaces the archive after the start."""
    mar, out = tmp_path / "convnet.mar", tmp_path / "answers.csv"
    mar.write_bytes(archive.read_bytes())
    (tmp_path / "images").mkdir()
    for digit, body in DIGITS.items():
        (tmp_path / "images" / f"{digit}.png").write_bytes(body)
    found = batch.find_images

    def replacing(*arguments):
        with_handler(archive, mar, "raise RuntimeError('the other one')")
        return found(*arguments)

    monkeypatch.setattr(batch, "find_images", replacing)
    assert cli.main(["predict", str(mar), str(tmp_path / "images"), "--out", str(out)]) == 0
    assert [line.split(",")[1] for line in out.read_text().splitlines()[1:]] == list(DIGITS)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_no_archive(tmp_path, kind):
    """A pipe may never end, so it is not read."""
    path = tmp_path / "a.mar"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    [fault] = faults(path)
    assert fault == f"{path} is not a file; name a .mar"


def test_environment_below_tmp_is_set_apart_too():
    """The readable folder then already exists, where a link to the writable one would go."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        program = "from marctl.sandbox import sandbox; print(sandbox.isolation_fault())"
        told = subprocess.run(
            [f"{folder}/bin/python", "-c", program], env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    here = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == here.stdout
