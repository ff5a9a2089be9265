"""What an image has below the packages of Python, as components of a bill of materials in CycloneDX."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

# dpkg-query's fields of a Debian package, with a tab between.
FIELDS = "${Package}\\t${Version}\\t${Architecture}\\t${source:Package}\\t${source:Version}\\n"


def components() -> list[dict[str, Any]]:
    """Return the distribution, its packages, Python, and the Java of JAVA_HOME if there is one.

    Raises FileNotFoundError where there is no dpkg: the images are Debian's.
    """
    release = platform.freedesktop_os_release()
    # Debian's testing has a name, but no number.
    name, version = release["ID"], release.get("VERSION_ID") or release.get("VERSION_CODENAME", "")
    python = _component("platform", "python", platform.python_version(), "generic")
    distribution = {"type": "operating-system", "bom-ref": name, "name": name, "version": version}
    return [distribution, python, *_java(), *debian_packages(_dpkg(), name, version)]


def debian_packages(listed: str, distribution: str, release: str) -> Iterator[dict[str, Any]]:
    """Yield the packages of dpkg-query's answer, which has FIELDS in each line."""
    for line in listed.splitlines():
        name, version, architecture, source, source_version = line.split("\t")
        about = {"arch": architecture, "distro": f"{distribution}-{release}"}
        if (source, source_version) != (name, version):  # advisories are about the source package
            about["upstream"] = f"{source}@{source_version}"
        yield _component("library", name, version, f"deb/{distribution}", about)


def _dpkg() -> str:
    command = ["dpkg-query", "--show", f"--showformat={FIELDS}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _java() -> Iterator[dict[str, Any]]:
    """Yield the Java, which jlink has put together from the distribution's."""
    if home := os.environ.get("JAVA_HOME"):
        lines = Path(home, "release").read_text(encoding="utf-8").splitlines()
        told = dict(line.split("=", 1) for line in lines if "=" in line)
        yield _component("platform", "openjdk", told["JAVA_VERSION"].strip('"'), "generic")


def _component(
    kind: str, name: str, version: str, registry: str, about: dict[str, str] | None = None
) -> dict[str, Any]:
    purl = f"pkg:{registry}/{quote(name, safe='')}@{quote(version, safe='')}"
    purl += f"?{urlencode(about)}" if about else ""
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}
