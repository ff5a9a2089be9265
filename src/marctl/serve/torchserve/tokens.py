"""TorchServe's tokens: without one it answers nobody. It keeps them in a file, and lets them expire.

A new token ends the old one at once. So none is asked for before the old one has expired: nobody who still
holds a good one is shut out.
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

KEY_FILE = "key_file.json"  # TorchServe's name for it, in the folder that it is started in
INFERENCE, MANAGEMENT = "inference", "management"
KINDS = (INFERENCE, MANAGEMENT)
API = "API"  # the token that makes the others new; it does not expire
KEY, EXPIRES = "key", "expiration time"
MINE, OTHERS = 0o600, 0o077
ANSWER = 10.0  # seconds for a new token
WRITING = 1.0  # seconds for which TorchServe may be seen while it writes the file
POLL = 0.02  # seconds between two looks at it


@dataclass(frozen=True)
class KeyFile:
    """The file of one TorchServe's tokens, and the address at which it makes new ones."""

    path: Path
    management: str

    def header(self, kind: str) -> dict[str, str]:
        """Return the header that lets a request in; none while TorchServe has written no token."""
        token = self.token(kind)
        return {} if token is None else _bearer(token)

    def token(self, kind: str) -> str | None:
        """Return a token that is good now, None while TorchServe has written none.

        Raises UserError, and what requests raises where an expired one cannot be replaced.
        """
        if (keys := self._read()) is None:
            return None
        return str(keys[kind][KEY]) if _is_good(keys[kind]) else self._new(kind)

    def _new(self, kind: str) -> str:
        with self.path.open("rb") as file:
            # One at a time: of two who ask for a new one, the second would end the first one's.
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
            raise UserError(f"TorchServe has written no token into {self.path} yet; try again")
        return keys

    def _read(self) -> dict[str, Any] | None:
        """Return what the file holds, None where it stays empty. Raises UserError."""
        end = time.monotonic() + WRITING
        while True:
            text = self._text()
            try:
                keys: dict[str, Any] = json.loads(text)
                if all(keys[kind][KEY] for kind in (*KINDS, API)):
                    return keys
            except (ValueError, TypeError, KeyError):
                pass  # TorchServe may be writing it just now: it empties the file first
            if time.monotonic() > end:
                break
            time.sleep(POLL)
        if text:
            raise UserError(f"{self.path} holds no tokens of TorchServe; {self._remedy}")
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
    """Make the empty file that TorchServe writes its tokens into, and return where.

    TorchServe closes it to others when it has written it: between the two, anybody could read it.
    """
    path = folder / KEY_FILE
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, MINE))
    return path


def curl_option(kind: str, run: Path) -> str:
    """Return what a person adds to curl to be let in."""
    which = [] if kind == INFERENCE else [f"KIND={kind}"]
    return f' -H "Authorization: Bearer $({make_command("token", run, *which)})"'


def _is_good(entry: dict[str, Any]) -> bool:
    try:
        return datetime.fromisoformat(entry[EXPIRES]) > datetime.now(UTC)
    except (KeyError, TypeError, ValueError):
        return False


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
