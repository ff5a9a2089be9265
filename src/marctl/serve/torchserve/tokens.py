"""TorchServe's tokens: requests need one. TorchServe keeps them in a file, and they expire.

A new token invalidates the old one at once. So a new one is requested only after the old one has expired:
clients with a valid token are not locked out.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from marctl.errors import UserError
from marctl.serve.make_command import make_command

KEY_FILE = "key_file.json"  # TorchServe's name for it, in its working folder
INFERENCE, MANAGEMENT = "inference", "management"
KINDS = (INFERENCE, MANAGEMENT)
API = "API"  # the token that renews the others; it does not expire
KEY, EXPIRES = "key", "expiration time"
MINE, OTHERS = 0o600, 0o077
ANSWER = 10.0  # seconds for a new token
WRITING = 1.0  # seconds for TorchServe to finish writing the file
POLL = 0.02  # seconds between two reads


@dataclass(frozen=True)
class KeyFile:
    """The file of a TorchServe's tokens, and the address that issues new ones."""

    path: Path
    management: str

    def header(self, kind: str) -> dict[str, str]:
        """Return the authorization header; empty until TorchServe has written its tokens."""
        token = self.token(kind)
        return {} if token is None else _bearer(token)

    def token(self, kind: str) -> str | None:
        """Return a valid token, None until TorchServe has written its tokens.

        Raises UserError, and what requests raises if an expired token cannot be replaced.
        """
        if (keys := self._read()) is None:
            return None
        return str(keys[kind][KEY]) if _is_good(keys[kind]) else self._new(kind)

    def _new(self, kind: str) -> str:
        with self.path.open("rb") as file:
            # One at a time: a second request would invalidate the first one's token.
            fcntl.flock(file, fcntl.LOCK_EX)
            keys = self._written()
            if not _is_good(keys[kind]):
                self._ask_for(kind, keys)
                keys = self._written()
        return str(keys[kind][KEY])

    def _ask_for(self, kind: str, keys: dict[str, Any]) -> None:
        url = f"{self.management}/token?type={kind}"
        with requests.Session() as session:
            session.trust_env = False  # this machine's own address needs no proxy
            reply = session.get(url, headers=_bearer(keys[API][KEY]), timeout=ANSWER)
        if not reply.ok:
            raise UserError(f"{url} answers {reply.status_code}: {reply.text.strip()}")

    def _written(self) -> dict[str, Any]:
        if (keys := self._read()) is None:
            raise UserError(f"TorchServe has not written its tokens to {self.path} yet; try again")
        return keys

    def _read(self) -> dict[str, Any] | None:
        """Return the file's content, None if it stays empty. Raises UserError."""
        end = time.monotonic() + WRITING
        while True:
            text = self._text()
            try:
                keys: dict[str, Any] = json.loads(text)
                if all(keys[kind][KEY] for kind in (*KINDS, API)):
                    return keys
            except (ValueError, TypeError, KeyError):
                pass  # TorchServe may be writing the file, which it truncates first
            if time.monotonic() > end:
                break
            time.sleep(POLL)
        if text:
            raise UserError(f"{self.path} does not hold TorchServe's tokens; {self._remedy}")
        return None

    @property
    def _remedy(self) -> str:
        return f"for new ones: {make_command('stop serve', self.path.parent, 'TOKENS=on')}"

    def _text(self) -> str:
        try:
            with self.path.open(encoding="utf-8") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                text = file.read()
        except OSError as error:
            fault = f"cannot read the tokens in {self.path}: {error.strerror}; {self._remedy}"
            raise UserError(fault) from error
        if mode & OTHERS:
            raise UserError(
                f"others can read TorchServe's tokens: the mode of {self.path} is {mode:o}; "
                f"close it: chmod {MINE:o} {self.path}; {self._remedy}"
            )
        return text


def prepare(folder: Path) -> Path:
    """Create the empty file for TorchServe's tokens, with mode 600, and return its path.

    TorchServe restricts the mode only after writing: until then other users could read the tokens.
    """
    path = folder / KEY_FILE
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, MINE))
    return path


def curl_option(kind: str, run: Path) -> str:
    """Return the curl option that sends a token."""
    which = [] if kind == INFERENCE else [f"KIND={kind}"]
    return f' -H "Authorization: Bearer $({make_command("token", run, *which)})"'


def _is_good(entry: dict[str, Any]) -> bool:
    try:
        return datetime.fromisoformat(entry[EXPIRES]) > datetime.now(UTC)
    except (KeyError, TypeError, ValueError):
        return False


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
