"""Sign an archive, or check its signature: Ed25519 over the file's bytes, in a second file beside it.

`openssl pkeyutl -verify -rawin` checks the same signature without this project.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from marctl.archive.mar import SUFFIX, BadArchive, is_signature
from marctl.errors import UserError

__all__ = ["SUFFIX", "UserError", "check_signature", "is_signature", "sign"]

HOW_TO_MAKE_KEYS = (
    "openssl genpkey -algorithm ed25519 -out private.pem && "
    "openssl pkey -in private.pem -pubout -out public.pem"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the archive and the key."""
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("--key", type=Path, required=True, help="an Ed25519 private key, PEM")


def run(arguments: argparse.Namespace) -> int:
    """Sign one archive."""
    print(f"signed: {sign(arguments.archive, arguments.key)}")
    return 0


def sign(archive: Path, key: Path) -> Path:
    """Write the archive's signature beside it and return its path. Raises UserError."""
    private = _private(key)
    signature = archive.with_name(archive.name + SUFFIX)
    if os.path.lexists(signature) and not is_signature(signature):
        raise BadArchive(f"{signature} exists but is not a signature; move it away and sign again")
    part = signature.with_name(f".{signature.name}-{os.getpid()}")
    try:
        part.write_bytes(private.sign(_bytes(archive)))
        part.replace(signature)
    finally:
        part.unlink(missing_ok=True)
    return signature


def check_signature(archive: Path, public_key: Path) -> None:
    """Raise BadArchive if the archive has no signature, or not one by this key."""
    public = _public(public_key)
    signature = archive.with_name(archive.name + SUFFIX)
    if not signature.exists():
        raise BadArchive(f"{archive} has no signature {signature}; sign it: make sign KEY=private.pem")
    if _is_not_a_file(signature):
        raise BadArchive(f"the signature {signature} is not a file; remove it and sign {archive}")
    try:
        public.verify(signature.read_bytes(), _bytes(archive))
    except OSError as error:
        raise BadArchive(f"cannot read the signature {signature}: {error.strerror}") from error
    except InvalidSignature:
        raise BadArchive(
            f"the signature {signature} does not match {archive} and the key {public_key}: the archive has "
            "changed since it was signed, or was signed with another key"
        ) from None


def _is_not_a_file(path: Path) -> bool:
    """Return whether the path exists and is not a regular file: a pipe or a device may have no end."""
    return path.exists() and not path.is_file()


def _bytes(archive: Path) -> bytes:
    if _is_not_a_file(archive):
        raise BadArchive(f"{archive} is not a file; name a .mar")
    try:
        return archive.read_bytes()
    except OSError as error:
        raise BadArchive(f"there is no archive {archive}; build it with: make archive") from error


def _private(path: Path) -> Ed25519PrivateKey:
    if _is_not_a_file(path):
        raise UserError(f"the private key {path} is not a file; make one: {HOW_TO_MAKE_KEYS}")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise UserError(
            f"cannot read the private key {path} ({error}); make one: {HOW_TO_MAKE_KEYS}"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{path} is not an Ed25519 private key; make one: {HOW_TO_MAKE_KEYS}")
    return key


def _public(path: Path) -> Ed25519PublicKey:
    if _is_not_a_file(path):
        raise UserError(f"the public key {path} is not a file; make one: {HOW_TO_MAKE_KEYS}")
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise UserError(
            f"cannot read the public key {path} ({error}); make one: {HOW_TO_MAKE_KEYS}"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise UserError(f"{path} is not an Ed25519 public key; make one: {HOW_TO_MAKE_KEYS}")
    return key
