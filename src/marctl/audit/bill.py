"""A bill of materials of what is served, in CycloneDX: the archive, the packages, the jar's libraries."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from classifier.canonical import PROVENANCE
from marctl.archive.bounded_zip import read_record
from marctl.archive.claims import malformed
from marctl.archive.mar import BadArchive, read_manifest, reading
from marctl.archive.members import check_members
from marctl.archive.private_copy import private_copy
from marctl.audit import system
from marctl.audit.jar import Library, digest, libraries
from marctl.errors import UserError
from marctl.records import Records

SPEC = "1.6"
TORCHSERVE = "torchserve"
# The prefix of our own properties' names.
OWN = "convnet-serving"


def write(file: Path, archive: Path, environment: Path, lock: Path, cyclonedx: Path) -> str:
    """Write the bill of what serves an archive, and return a summary. Raises UserError.

    `environment` is the virtual environment that serves, and `lock` names its packages that count. torch's
    CUDA packages, in the lock beside it, count if they are installed.
    """
    installed = _installed(environment, cyclonedx)
    served = _names(lock)
    wanted = served | _names(lock.with_name("cuda.txt"))
    installed["components"] = [one for one in installed["components"] if _normal(one["name"]) in wanted]
    if missing := served - {_normal(one["name"]) for one in installed["components"]}:
        raise UserError(f"{environment} lacks {', '.join(sorted(missing))} of {lock}; run: make setup")
    libs = libraries(_jar_of(environment))
    keep(file, _bill(archive, environment, installed, libs, []), Records())
    return f"{file}: the archive, {len(installed['components'])} packages, {len(libs)} Java libraries"


def of_image(archive: Path, environment: Path, cyclonedx: Path) -> str:
    """Return the bill of the image that this runs in: all of the environment, and the system below."""
    installed = _installed(environment, cyclonedx)
    return _bill(archive, environment, installed, libraries(_jar_of(environment)), system.components())


def _bill(
    archive: Path,
    environment: Path,
    bill: dict[str, Any],
    libs: Sequence[Library],
    below: list[dict[str, Any]],
) -> str:
    """Complete cyclonedx-py's bill of the packages by the archive, the jar's libraries and what is below."""
    packages, jar = bill["components"], _jar_of(environment)
    _add_licences(packages, environment)
    bill["components"] = [_archive(archive), *packages, _jar(jar), *(_library(one) for one in libs), *below]
    bill["metadata"]["component"] = {"type": "application", "name": OWN, "bom-ref": OWN}
    bill["dependencies"] = _dependencies(bill, packages, libs)
    text = json.dumps(bill, indent=2) + "\n"
    _check(text)
    return text


def keep(file: Path, text: str, records: Records) -> None:
    """Write the bill, unless a file is in the way that was not made here. Raises UserError."""
    try:
        with records.making(file):
            records.check_may_write(file, "move it away")
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".bill-", dir=file.parent) as folder:
                part = Path(folder) / file.name
                part.write_text(text, encoding="utf-8")
                records.write(file, digest(part), digest(part))
                part.replace(file)
    except OSError as error:
        raise UserError(f"{error.filename or file}: {error.strerror}; {file} was not written") from error


def _installed(environment: Path, cyclonedx: Path) -> dict[str, Any]:
    """Return the bill of everything installed in an environment, with licences."""
    command: list[str | Path] = [cyclonedx, "environment", "--output-reproducible", "--spec-version", SPEC]
    command += ["--output-format", "JSON", "--output-file", "-", environment / "bin" / "python"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"cyclonedx-py cannot list {environment}: {done.stderr.strip()}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _add_licences(packages: Iterable[dict[str, Any]], environment: Path) -> None:
    """Add licences that packages describe in their own words: cyclonedx-py takes only registered names."""
    folders = [str(folder) for folder in environment.glob("lib/python*/site-packages")]
    told = [(one.name, one.metadata) for one in distributions(path=folders)]
    named = {_normal(name): metadata["License"] for name, metadata in told if "License" in metadata}
    for one in packages:
        if not one.get("licenses") and (words := named.get(_normal(one["name"]))):
            one["licenses"] = [{"license": {"name": words}}]


def _archive(archive: Path) -> dict[str, Any]:
    """Return the archive's entry. Raises BadArchive if it is sealed, and its records are malformed."""
    with private_copy(archive) as copy:
        model, sha256 = read_manifest(copy)["model"], digest(copy)
        with reading(copy) as mar:
            is_sealed = PROVENANCE in mar.namelist()
            record = read_record(mar, PROVENANCE) if is_sealed else b"{}"
        if is_sealed:
            check_members(copy)
    if is_sealed and (fault := next(malformed({PROVENANCE: record}), None)) is not None:
        raise BadArchive(f"{archive}: {fault}")
    told = json.loads(record)
    name, version = model["modelName"], str(model.get("modelVersion", ""))
    return {
        "type": "machine-learning-model",
        "bom-ref": archive.name,
        "name": name,
        "version": version,
        "purl": f"pkg:generic/{name}@{version}?checksum=sha256:{sha256}",
        "hashes": [_sha256(sha256)],
        "properties": _properties(
            {key: told[key] for key in ("source_commit", "runtime", "torch") if key in told}
        ),
    }


def _jar(jar: Path) -> dict[str, Any]:
    return {"type": "file", "bom-ref": jar.name, "name": jar.name, "hashes": [_sha256(digest(jar))]}


def _library(library: Library) -> dict[str, Any]:
    version = {"version": library.version} if library.version else {}
    return {
        "type": "library",
        "bom-ref": library.purl,
        "group": library.group,
        "name": library.name,
        **version,
        "purl": library.purl,
        "properties": _properties({"version_from": library.source}),
    }


def _dependencies(
    bill: dict[str, Any], packages: list[dict[str, Any]], libs: Iterable[Library]
) -> list[dict[str, Any]]:
    """Return the dependencies: those between packages, torchserve's jar, and the jar's libraries."""
    refs = {one["bom-ref"] for one in packages}
    [torchserve] = [one["bom-ref"] for one in packages if _normal(one["name"]) == TORCHSERVE]
    archive, *_ = bill["components"]
    [jar] = [one["bom-ref"] for one in bill["components"] if one["type"] == "file"]
    needs = {
        one["ref"]: [ref for ref in one.get("dependsOn", []) if ref in refs]
        for one in bill["dependencies"]
        if one["ref"] in refs
    }
    needs[OWN] = [archive["bom-ref"], *sorted(refs)]
    needs[torchserve] = [*needs.get(torchserve, []), jar]
    needs[jar] = [one.purl for one in libs]
    return [{"ref": ref, **({"dependsOn": on} if on else {})} for ref, on in sorted(needs.items())]


def _check(text: str) -> None:
    """Raise UserError if a text does not fit CycloneDX's schema."""
    # Imported only here: the rest of this file works without the library.
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    if (fault := JsonStrictValidator(SchemaVersion.from_version(SPEC)).validate_str(text)) is not None:
        raise UserError(f"the bill of materials is not valid CycloneDX {SPEC}: {fault}")


def _jar_of(environment: Path) -> Path:
    found = sorted(environment.glob("lib/python*/site-packages/ts/frontend/model-server.jar"))
    if not found:
        raise UserError(f"{environment} has no TorchServe; run: make setup")
    return found[0]


def _names(lock: Path) -> set[str]:
    pinned = re.findall(r"^([\w.-]+)==", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return {_normal(name) for name in pinned}


def _normal(name: str) -> str:
    """Return a package's normalised name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _sha256(value: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": value}


def _properties(values: dict[str, Any]) -> list[dict[str, str]]:
    return [{"name": f"{OWN}:{key}", "value": str(value)} for key, value in values.items()]
