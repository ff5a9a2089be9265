"""The locks have every package that the project pins, with its version and hashes."""

import re
import tomllib

import pytest

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LAYERS = ("archive", "torch", "flask", "client", "explain", "parquet")


def pinned(pins):
    """Return the pins of a list, without this project's own extras."""
    return {re.sub(r"\[.*\]", "", pin) for pin in pins if not pin.startswith("marctl[")}


@pytest.mark.parametrize("layer", ["serve", *LAYERS])
def test_locks_have_the_versions_of_the_project(layer):
    """Each package that an extra pins is in its lock, or in the one below it, with that version."""
    locked = names_of(layer) | names_of("serve") | (names_of("torch") if layer == "explain" else set())
    pins = PROJECT["project"]["optional-dependencies"][layer] + PROJECT["project"]["dependencies"]
    assert pinned(pins) <= locked


@pytest.mark.parametrize("group", ["train", "test", "lint", "build", "uv", "audit"])
def test_locks_have_the_versions_of_the_groups(group):
    """Each package of a group is in its lock."""
    lock = "dev" if group in ("train", "test", "lint") else group
    assert pinned(PROJECT["dependency-groups"][group]) <= names_of(lock)


def names_of(lock):
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    return set(re.findall(r"^[a-z0-9][\w.-]*==[^ ]+", text, re.MULTILINE))


LOCKS = sorted(set(ROOT.glob("requirements/*.txt")) - {ROOT / "requirements" / "tensorflow.overrides.txt"})


@pytest.mark.parametrize("lock", LOCKS, ids=lambda file: file.stem)
def test_every_locked_package_has_a_hash(lock):
    """Pip refuses a file with another hash and a package with none; no lock names a source."""
    text = lock.read_text()
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        assert re.search(r"^\S+==\S+ \\\n +--hash=sha256:[0-9a-f]{64}", entry)
    assert "://" not in text
    assert "index" not in re.findall(r"^-+[\w-]+", text, re.MULTILINE)


def test_dev_has_all_of_the_other_locks():
    """Everything that is tested together is locked together."""
    for lock in ("serve", *LAYERS, "build"):
        assert names_of(lock) <= names_of("dev")


def test_build_backend_is_the_locked_one():
    """An isolated build and ours use the same version of the backend."""
    assert PROJECT["build-system"]["requires"] == PROJECT["dependency-groups"]["build"]
