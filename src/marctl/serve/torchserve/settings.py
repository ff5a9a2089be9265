"""config.properties: TorchServe's settings, which can be moved to other ports and hosts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from marctl.errors import UserError
from marctl.serve.ports import why_not

# TorchServe's keys that hold a port, in the order of the five ports from PORT on.
PORT_KEYS = (
    "inference_address",
    "management_address",
    "metrics_address",
    "grpc_inference_port",
    "grpc_management_port",
)
# Those that clients outside a container use. gRPC, which nothing here uses, stays on loopback.
ADDRESS_KEYS = PORT_KEYS[:3]
HIGHEST_PORT = 65535
# Offsets to try for the ports of a second server; the first free set is used.
STEPS = range(10, 200, 10)
BODY_LIMIT = "max_request_size"
# TorchServe's key that turns its tokens off; unless it says true, they are on.
NO_TOKENS = "disable_token_authorization"
TOKENS = {"on": "false", "off": "true"}
# The values that turn a switch such as EXPLAIN on and off.
YES, NO = ("1", "on", "yes", "true"), ("0", "off", "no", "false")
ANY_ADDRESS, LOOPBACK = "0.0.0.0", "127.0.0.1"  # noqa: S104 recognised, not bound


@dataclass(frozen=True)
class Settings:
    """The lines of a properties file, and the values of the keys for ports and tokens."""

    lines: tuple[str, ...]
    values: dict[str, str]

    @classmethod
    def from_file(cls, path: Path, first_port: int | None = None) -> Settings:
        """Read a properties file; with first_port, move its five ports to the ones from there on.

        Raises UserError if the file or a port is missing.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        pairs = dict(_pair(line) for line in lines if _pair(line)[0] in (*PORT_KEYS, NO_TOKENS))
        for key in PORT_KEYS:
            if key not in pairs:
                raise UserError(f"{path} does not set {key}; add it with its port, as in config.properties")
            if _port(pairs[key]) is None:
                raise UserError(f"{path} sets {key}={pairs[key]}: no port from 1 to {HIGHEST_PORT}")
        settings = cls(tuple(lines), pairs)
        return settings if first_port is None else settings.moved_to(first_port)

    @property
    def ports(self) -> list[int]:
        """The five ports, in the order of PORT_KEYS."""
        return [port for key in PORT_KEYS if (port := _port(self.values[key])) is not None]

    @property
    def inference(self) -> str:
        """The address for predictions."""
        return self._address("inference_address")

    @property
    def management(self) -> str:
        """The address of the management API, which lists models and workers."""
        return self._address("management_address")

    @property
    def tokens(self) -> bool:
        """Whether TorchServe requires a token."""
        return self.values.get(NO_TOKENS, "").lower() != "true"

    @property
    def text(self) -> str:
        """The file's text, with the current values."""
        changed = [self._line(line) for line in self.lines]
        there = {_pair(line)[0] for line in self.lines}
        added = [f"{key}={value}" for key, value in self.values.items() if key not in there]
        return "\n".join([*changed, *added]) + "\n"

    def moved_to(self, first_port: int) -> Settings:
        """Return the same settings on the five ports from first_port on. Raises UserError."""
        if not 0 < first_port <= HIGHEST_PORT - len(PORT_KEYS) + 1:
            raise UserError(f"there are no {len(PORT_KEYS)} ports from {first_port} on; try PORT=9080")
        return self._on(range(first_port, first_port + len(PORT_KEYS)))

    def beside(self, taken: int) -> Settings:
        """Return the same settings on five other free ports, none of them `taken`.

        Raises UserError if there are none.
        """
        for step in STEPS:
            ports = [port + step for port in self.ports]
            if taken not in ports and max(ports) <= HIGHEST_PORT and not any(map(why_not, ports)):
                return self._on(ports)
        raise UserError(f"no ports near {self.ports[0]} are free for another version; try PORT=9080")

    def behind(self, port: int) -> Settings:
        """Return the same settings with predictions on a loopback port, behind a reverse proxy."""
        key = PORT_KEYS[0]
        return Settings(self.lines, self.values | {key: _moved(_on_host(self.values[key], LOOPBACK), port)})

    def on_host(self, host: str) -> Settings:
        """Return the same settings with the HTTP addresses on another host, such as 0.0.0.0."""
        values = {key: _on_host(self.values[key], host) for key in ADDRESS_KEYS}
        return Settings(self.lines, self.values | values)

    def _on(self, ports: Iterable[int]) -> Settings:
        pairs = zip(PORT_KEYS, ports, strict=True)
        moved = {key: _moved(self.values[key], port) for key, port in pairs}
        return Settings(self.lines, self.values | moved)

    def with_tokens(self, word: str) -> Settings:
        """Return the same settings with TorchServe's tokens "on" or "off". Raises UserError."""
        if word not in TOKENS:
            raise UserError(f"TOKENS={word} is not known; use TOKENS=on or TOKENS=off")
        return Settings(self.lines, self.values | {NO_TOKENS: TOKENS[word]})

    def _line(self, line: str) -> str:
        key, _ = _pair(line)
        return f"{key}={self.values[key]}" if key in self.values else line

    def _address(self, key: str) -> str:
        parts = urlsplit(self.values[key])
        host = LOOPBACK if parts.hostname == ANY_ADDRESS else parts.hostname
        return f"{parts.scheme}://{host}:{parts.port}"


def is_on(name: str, word: str, *, default: bool) -> bool:
    """Return whether a switch such as EXPLAIN=1 is on; an empty word is the default. Raises UserError."""
    if word.lower() not in ("", *YES, *NO):
        raise UserError(f"{name}={word} is not known; use {name}={YES[0]} or {name}={NO[0]}")
    return word.lower() in YES if word else default


def body_limit(path: Path) -> int:
    """Return the properties file's limit for a request body, in bytes. Raises UserError."""
    try:
        values = dict(_pair(line) for line in path.read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    limit = values.get(BODY_LIMIT, "")
    if not limit.isdigit():
        raise UserError(f"{path} sets {BODY_LIMIT} to {limit!r}; set it to a number of bytes")
    return int(limit)


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition("=")
    return key.strip(), value.strip()


def _port(value: str) -> int | None:
    """Return the port in a number or an address; None if there is no valid one."""
    try:
        port = int(value) if value.isdigit() else urlsplit(value).port
    except ValueError:
        return None
    return port if port and port <= HIGHEST_PORT else None


def _on_host(address: str, host: str) -> str:
    parts = urlsplit(address)
    return parts._replace(netloc=f"{host}:{parts.port}").geturl()


def _moved(value: str, port: int) -> str:
    if value.isdigit():
        return str(port)
    parts = urlsplit(value)
    return parts._replace(netloc=f"{parts.hostname}:{port}").geturl()
