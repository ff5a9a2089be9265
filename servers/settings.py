"""config.properties: which ports TorchServe opens, and the same settings on other ports."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# TorchServe's keys that hold a port, in the order in which PORT counts them up.
PORT_KEYS = (
    "inference_address",
    "management_address",
    "metrics_address",
    "grpc_inference_port",
    "grpc_management_port",
)
HIGHEST_PORT = 65535
LOOPBACK = "127.0.0.1"


class BadSettings(ValueError):
    """A config.properties, or a PORT, that TorchServe could not be started with."""


@dataclass(frozen=True)
class Settings:
    """The text of a properties file, and the port behind each of PORT_KEYS."""

    text: str
    ports: dict[str, int]

    @classmethod
    def from_file(cls, path: Path, first_port: int | None = None) -> Settings:
        """Read a properties file; with first_port, count its five ports up from there.

        Raises BadSettings where the file or a port is missing.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise BadSettings(f"cannot read {path}: {error.strerror}") from error
        settings = cls(text, {key: _port(text, key, path) for key in PORT_KEYS})
        return settings if first_port is None else settings.moved_to(first_port)

    @property
    def inference(self) -> str:
        """Where predictions are answered."""
        return f"http://{LOOPBACK}:{self.ports['inference_address']}"

    @property
    def management(self) -> str:
        """Where models and their workers are listed."""
        return f"http://{LOOPBACK}:{self.ports['management_address']}"

    def moved_to(self, first_port: int) -> Settings:
        """Return the same settings on the five ports from first_port on. Raises BadSettings."""
        if not 0 < first_port <= HIGHEST_PORT - len(PORT_KEYS) + 1:
            raise BadSettings(f"there are no {len(PORT_KEYS)} ports from {first_port} on; try PORT=9080")
        ports = {key: first_port + offset for offset, key in enumerate(PORT_KEYS)}
        text = self.text
        for key, port in ports.items():
            text = re.sub(rf"^({key}\s*=.*?)\d+\s*$", rf"\g<1>{port}", text, flags=re.MULTILINE)
        return Settings(text, ports)


def _port(text: str, key: str, path: Path) -> int:
    found = re.search(rf"^{key}\s*=.*?(\d+)\s*$", text, flags=re.MULTILINE)
    if found is None:
        raise BadSettings(f"{path} sets no {key}; write it with its port, as in config.properties")
    return int(found[1])
