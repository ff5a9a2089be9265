"""Known vulnerabilities of the packages in a lock, which pip-audit looks up in a service on the network."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from marctl.audit.accepted import Accepted
from marctl.errors import UserError

PATIENCE = 20  # seconds for one response of the service
SERVICES = {"pypi", "osv"}


def vulnerabilities(pip_audit: Path, lock: Path, service: str, accepted: Accepted) -> tuple[int, list[str]]:
    """Return how many packages a lock pins, and a sentence for each vulnerability that is not accepted.

    Raises UserError if the service, "pypi" or "osv", does not answer.
    """
    found = _asked(pip_audit, lock, service)["dependencies"]
    # pip-audit does not report an error if a service answers "not found" to everything.
    if all("skip_reason" in one for one in found):
        raise _not_asked(lock, service, f"it finds none of the {len(found)} packages")
    return len(found), [sentence for one in found for sentence in _sentences(one, lock, accepted)]


def _asked(pip_audit: Path, lock: Path, service: str) -> dict[str, Any]:
    # The lock is complete: nothing needs to be resolved or installed.
    command: list[str | Path] = [pip_audit, "--requirement", lock, "--no-deps", "--disable-pip"]
    command += ["--vulnerability-service", service, "--timeout", str(PATIENCE)]
    command += ["--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines() or [
            f"it exited with status {done.returncode} and no message"
        ]
        raise _not_asked(lock, service, lines[-1]) from None
    return told


def _not_asked(lock: Path, service: str, said: str) -> UserError:
    [other] = SERVICES - {service}
    return UserError(
        f"cannot check the packages in {lock}: the service {service!r} does not answer pip-audit "
        f"({said}); try again, or use another service: make audit SERVICE={other}"
    )


def _sentences(package: dict[str, Any], lock: Path, accepted: Accepted) -> Iterator[str]:
    where = f"{lock} pins {package['name']}"
    if reason := package.get("skip_reason"):
        yield f"{where}, which was not checked: {reason}"
        return
    for vulnerability in package["vulns"]:
        if not accepted.covers([vulnerability["id"], *vulnerability["aliases"]]):
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
            yield f"{where} {package['version']}, which has {vulnerability['id']}, fixed in {fixed}"
