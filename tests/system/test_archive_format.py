"""A second reader of archives, written from docs/archive-format.md alone.

It shares no code with the project and uses no zip library. Where it and the project disagree, one of them
or the page is wrong.
"""

import calendar
import hashlib
import io
import json
import re
import shutil
import struct
import subprocess
import time
import warnings
import zipfile
import zlib

import pytest

from classifier import canonical
from marctl.archive.signing import sign
from marctl.verify.verify import faults
from tests.conftest import ROOT

SUMS, MANIFEST = "MAR-INF/SHA256SUMS", "MAR-INF/MANIFEST.json"
RUNTIMES = {"onnx": "runtime.onnx", "torchscript": "runtime.pt", "aoti": "runtime.pt2"}


class Refused(Exception):
    """The archive differs from the format that the page describes."""


def require(condition, what):
    if not condition:
        raise Refused(what)


def read(data):
    """Return a zip file's members and their DOS times; raise Refused if any byte is not canonical."""
    at, listed, members, times = 0, b"", {}, set()
    while data[at : at + 4] == b"PK\x03\x04":
        require(len(data) >= at + 30, "the file ends in a local header")
        moment, _, _, size, length = struct.unpack_from("<IIIIH", data, at + 10)
        name = data[at + 30 : at + 30 + length].decode(errors="replace")
        body = data[at + 30 + length : at + 30 + length + size]
        require(len(body) == size, f"{name} is longer than the file")
        require("\\" not in name and not {"", ".", ".."} & set(name.split("/")), f"the name {name}")
        flags = 0 if name.isascii() else 0x800
        header = struct.pack("<HHHIIIIH", 20, flags, 0, moment, zlib.crc32(body), size, size, length)
        require(data[at + 4 : at + 30] == header + bytes(2), f"the local header of {name}")
        require(not members or list(members)[-1].encode() < name.encode(), f"the order of {name}")
        listed += b"PK\x01\x02" + bytes((20, 3)) + header + bytes(8) + struct.pack("<II", 0x81A40000, at)
        listed += name.encode()
        members[name] = body
        times.add(moment)
        at += 30 + length + size
    count = len(members)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, len(listed), at, 0)
    require(data[at:] == listed + end, "what follows the members")
    return members, times


def verify(data):
    """Perform steps 1 to 4 of the page; raise Refused at the first that fails."""
    members, times = read(data)
    for needed in (SUMS, MANIFEST, "provenance.json", "golden.json"):
        require(needed in members, f"{needed} is missing")
    digests = {name: hashlib.sha256(body).hexdigest() for name, body in members.items() if name != SUMS}
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    require(members[SUMS].decode() == lines, "the digests")
    model = json.loads(members[MANIFEST])["model"]
    told = json.loads(members["provenance.json"])
    year, month, day, hour, minute, second, *_ = time.gmtime(
        max(told["created"], calendar.timegm((1980, 1, 1, 0, 0, 0)))
    )
    moment = ((year - 1980) << 9 | month << 5 | day) << 16 | hour << 11 | minute << 5 | second // 2
    require(times == {moment}, "the members' time")
    for key in ("handler", "serializedFile", "configFile", "modelFile"):
        require(model.get(key) in members or (key == "modelFile" and key not in model), f"the {key}")
    require((told["name"], told["version"]) == (model["modelName"], model["modelVersion"]), "the name")
    require(told["runtime"] in (*RUNTIMES, "eager"), "the runtime")
    here = {kind for kind, name in RUNTIMES.items() if name in members}
    require(here == {told["runtime"]} - {"eager"}, "the runtime's member")
    golden = json.loads(members["golden.json"])["pictures"]
    require(golden and all(f"golden/{name}" in members for name in golden), "the golden images")
    return members


def test_archive_is_as_the_page_describes(archive):
    """The second reader accepts the archive that `make archive` built."""
    members = verify(archive.read_bytes())
    with zipfile.ZipFile(archive) as mar:
        assert members == {name: mar.read(name) for name in mar.namelist()}


def changed(name, old, new):
    return lambda members: members.update({name: members[name].replace(old, new)})


def sealed(change):
    """Write the digests again after a change, as a skilled attacker would."""

    def change_and_seal(members):
        change(members)
        del members[SUMS]
        members.update(canonical.with_sums(dict(members)))

    return change_and_seal


EDITS = {
    "a member changed": changed("convnet_handler.py", b"import", b"impart"),
    "a member removed": lambda members: members.pop("model-card.md"),
    "a member added": lambda members: members.update({"numpy.py": b""}),
    "a digest changed": changed(SUMS, b"0", b"1"),
    "no digests": lambda members: members.pop(SUMS),
    "no provenance": sealed(lambda members: members.pop("provenance.json")),
    "no golden answers": sealed(lambda members: members.pop("golden.json")),
    "another name": sealed(changed("provenance.json", b'"convnet"', b'"resnet"')),
    "another version": sealed(changed(MANIFEST, b'"1.0"', b'"2.0"')),
    "another runtime": sealed(changed("provenance.json", b'"onnx"', b'"eager"')),
    "an unknown runtime": sealed(changed("provenance.json", b'"onnx"', b'"magic"')),
    "no runtime": sealed(lambda members: members.pop("runtime.onnx")),
    "two runtimes": sealed(lambda members: members.update({"runtime.pt": members["runtime.onnx"]})),
    "no model file": sealed(lambda members: members.pop("convnet.py")),
    "no weights": sealed(lambda members: members.pop("convnet.pth")),
    "a golden image removed": sealed(lambda members: members.pop("golden/2.png")),
    "no golden image named": sealed(lambda members: members.update({"golden.json": b'{"pictures": {}}'})),
    "a path that leads out": sealed(lambda members: members.update({"../numpy.py": b""})),
    "an absolute path": sealed(lambda members: members.update({"/srv/numpy.py": b""})),
    "a backslash": sealed(lambda members: members.update({"..\\numpy.py": b""})),
    "another form of a path": sealed(lambda members: members.update({"classifier//x.py": b""})),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_edited_members_are_refused(archive, tmp_path, edit):
    """The second reader and `make verify` refuse each edit, even though the zip file is canonical."""
    with zipfile.ZipFile(archive) as mar:
        members = {name: mar.read(name) for name in mar.namelist()}
        created = json.loads(members["provenance.json"])["created"]
    edit(members)
    copy = tmp_path / "convnet.mar"
    with copy.open("wb") as file:
        canonical.write(members, created, file)
    with pytest.raises(Refused):
        verify(copy.read_bytes())
    assert faults(copy)


def rezipped(data, method=zipfile.ZIP_STORED, edit=None, twice=""):
    """Return the members as another program would zip them."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as mar, zipfile.ZipFile(file, "w", method) as packed:
        for info in mar.infolist():
            body = mar.read(info.filename)
            info.compress_type = method
            if edit:
                edit(info)
            packed.writestr(info, body)
        if twice:
            with warnings.catch_warnings(action="ignore"):
                packed.writestr(twice, b"")
    return file.getvalue()


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


REPACKED = {
    "compressed": lambda data: rezipped(data, zipfile.ZIP_DEFLATED),
    "a link": lambda data: rezipped(data, edit=lambda info: setattr(info, "external_attr", 0o120777 << 16)),
    "another time": lambda data: rezipped(
        data, edit=lambda info: setattr(info, "date_time", (2001, 1, 1, 0, 0, 0))
    ),
    "a comment": lambda data: rezipped(data, edit=lambda info: setattr(info, "comment", b"hidden")),
    "an extra field": lambda data: rezipped(data, edit=lambda info: setattr(info, "extra", bytes(4))),
    "a name twice": lambda data: rezipped(data, twice="provenance.json"),
    "a program before it": lambda data: b"#!/bin/sh\n" + data,
    "data after it": lambda data: data + b"hidden",
    "cut short": lambda data: data[: len(data) // 2],
    "the last byte gone": lambda data: data[:-1],
    "a bit of the first header": lambda data: flipped(data, 8),
    "a bit of the first member": lambda data: flipped(data, 60),
    "a bit of the central directory": lambda data: flipped(data, data.rindex(b"PK\x01\x02") + 38),
    "a bit of the end record": lambda data: flipped(data, len(data) - 14),
}


@pytest.mark.parametrize("repack", REPACKED.values(), ids=REPACKED)
def test_other_zip_files_of_the_same_members_are_refused(archive, tmp_path, repack):
    """Changes outside the members are found too: the members determine the bytes of the file."""
    copy = tmp_path / "convnet.mar"
    copy.write_bytes(repack(archive.read_bytes()))
    with pytest.raises(Refused):
        verify(copy.read_bytes())
    assert faults(copy)


def test_openssl_checks_a_signature(archive, tmp_path):
    """The page's command accepts the archive's signature, and refuses it for a changed archive."""
    page = (ROOT / "docs" / "archive-format.md").read_text()
    [check] = re.findall(r"^openssl .*-verify .*$", page, re.MULTILINE)
    copy = tmp_path / "convnet.mar"
    shutil.copy(archive, copy)
    for command in (
        "genpkey -algorithm ed25519 -out private.pem",
        "pkey -in private.pem -pubout -out public.pem",
    ):
        subprocess.run(["openssl", *command.split()], cwd=tmp_path, check=True)
    assert sign(copy, tmp_path / "private.pem").stat().st_size == 64
    assert subprocess.run(check.split(), cwd=tmp_path, capture_output=True, check=False).returncode == 0
    copy.write_bytes(flipped(copy.read_bytes(), 60))
    assert subprocess.run(check.split(), cwd=tmp_path, capture_output=True, check=False).returncode != 0
