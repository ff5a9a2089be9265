"""What is checked is what is served: replacing an archive later changes nothing."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import requests

from bench.servers.stack import WORKER
from classifier import canonical
from classifier.golden import ANSWERS as GOLDEN_ANSWERS
from marctl.archive.mar import BadArchive
from marctl.archive.signing import SUFFIX, sign
from marctl.serve.served_copies import Terms, describe, sha256, take
from tests.conftest import DIGITS, MARCTL, ROOT, free_port, make
from tests.support.flask_process import flask_of
from tests.support.waiting import PATIENCE, wait_for_the_end_of, wait_until
from tests.system.test_verify import Members

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def by_words(archive: Path, target: Path) -> Path:
    """Write another sealed archive that answers with words, so each answer shows its archive."""
    members = Members(archive)
    del members[canonical.SUMS]
    contract = members["model-config.yaml"].decode()
    [digits] = [line for line in contract.splitlines() if line.startswith("labels:")]
    members["model-config.yaml"] = contract.replace(digits, f"labels: {json.dumps(WORDS)}").encode()
    answers = json.loads(members[GOLDEN_ANSWERS])
    for one in answers["pictures"].values():
        one["label"] = WORDS[int(one["label"])]
    members[GOLDEN_ANSWERS] = json.dumps(answers).encode()
    created = json.loads(members[canonical.PROVENANCE])["created"]
    with target.open("wb") as file:
        canonical.write(canonical.with_sums(members), created, file)
    describe(target)
    return target


@pytest.fixture
def key(tmp_path):
    """A private key, with its public key beside it."""
    private = tmp_path / "private.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    public = ["openssl", "pkey", "-in", private, "-pubout", "-out", public_of(private)]
    subprocess.run(public, check=True)
    return private


def public_of(private: Path) -> Path:
    return private.with_name("public.pem")


@pytest.fixture
def signed(archive, key, tmp_path):
    """A signed copy of the archive in its own folder."""
    mar = tmp_path / "dl" / "convnet.mar"
    mar.parent.mkdir()
    shutil.copy(archive, mar)
    sign(mar, key)
    return mar


@pytest.fixture
def other(archive, tmp_path):
    """The replacement: without the key it would be served."""
    return by_words(archive, tmp_path / "other.mar")


def exchange(mar: Path, other: Path) -> None:
    """Replace an archive by another file atomically, as mv does."""
    new = mar.with_name("new")
    shutil.copy(other, new)
    new.replace(mar)


def two(url: str) -> str:
    """Return the answer to an image of a two."""
    return requests.put(url, data=DIGITS["2"], timeout=PATIENCE).text


@contextlib.contextmanager
def starting(action: str, mar: Path, run: Path, *options: str):
    """Start a server, and yield its process and first port; at the end, stop everything."""
    port = free_port()
    command = [*MARCTL, action, "--run", str(run), "--port", str(port), *options, str(mar)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    try:
        with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
            try:
                yield process, port
            finally:
                process.terminate()
    finally:
        subprocess.run([*MARCTL, "stop", "--run", str(run)], check=True, capture_output=True)


def wait_for_state(process: subprocess.Popen[str], run: Path) -> None:
    """Return once Java has been started, which is long before it reads the archive."""
    while not (run / "server.json").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.001)


def is_answered(url: str) -> bool:
    """Return whether an image is answered; a request in a killed worker is not, for minutes."""
    try:
        return requests.put(url, data=DIGITS["2"], timeout=10).ok
    except requests.Timeout:
        return False


def check_serves(port: int, run: Path, digest: str) -> None:
    """Assert that the archive with this digest answers, also after its workers died, and is the only copy."""
    url = f"http://127.0.0.1:{port}/predictions/convnet"
    described = f"http://127.0.0.1:{port + 1}/models/convnet?customized=true"
    state = json.loads((run / "server.json").read_text())
    assert [one["sha256"] for one in state["served"]] == [digest]
    java = psutil.Process(state["pid"])
    assert two(url) == "2"
    for worker in [child for child in java.children() if WORKER in " ".join(child.cmdline())]:
        worker.kill()
    wait_until(lambda: is_answered(url))
    assert two(url) == "2"
    wait_until(lambda: isinstance(requests.get(described, timeout=PATIENCE).json(), list))
    [told] = requests.get(described, timeout=PATIENCE).json()
    assert told["customizedMetadata"]["archive_sha256"] == digest
    assert [path.name for path in (run / "served").iterdir()] == ["convnet.mar"]


@pytest.mark.parametrize("options", [[], ["--foreground"]], ids=["start", "foreground"])
def test_file_exchanged_while_java_starts_is_not_served(signed, other, key, tmp_path, options):
    """Replaced after the state appears, the signed archive still answers, as status reports."""
    digest, run = sha256(signed), tmp_path / "run"
    with starting("serve", signed, run, *options, "--public-key", str(public_of(key))) as (process, port):
        wait_for_state(process, run)
        exchange(signed, other)
        assert any("ready after" in line for line in process.stdout)
        check_serves(port, run, digest)
        status = make("status", RUN=str(run))
        assert status.returncode != 0
        assert f"{signed} has changed since; to serve the new one: make stop serve" in status.stdout
    assert not (run / "served").exists()


@pytest.mark.nginx
def test_file_exchanged_before_torchserve_dies_is_not_started(signed, other, key, tmp_path):
    """Behind the reverse proxy, too, a restart uses the archive that was checked."""
    digest, run = sha256(signed), tmp_path / "run"
    door = free_port()
    options = ["--foreground", "--door", str(door), "--public-key", str(public_of(key))]
    with starting("up", signed, run, *options) as (process, port):
        wait_for_state(process, run)
        exchange(signed, other)
        assert any("ready after" in line for line in process.stdout)
        psutil.Process(json.loads((run / "server.json").read_text())["pid"]).kill()
        address = f"http://127.0.0.1:{door}"
        wait_until(lambda: requests.get(f"{address}/health/ready", timeout=PATIENCE).status_code == 503)
        wait_until(lambda: requests.get(f"{address}/health/ready", timeout=PATIENCE).ok)
        assert two(f"{address}/predictions/convnet") == "2"
        check_serves(port, run, digest)


@pytest.mark.parametrize("what", ["another archive", "rubbish", "nothing"])
def test_flask_worker_that_starts_later_loads_what_was_checked(signed, other, key, tmp_path, what):
    """Replaced workers open the copy of the first start, whatever is at the path."""
    digest, scratch = sha256(signed), tmp_path / "scratch"
    scratch.mkdir()
    with flask_of(signed, "--public-key", str(public_of(key)), TMPDIR=str(scratch)) as running:
        if what == "nothing":
            signed.unlink()
        else:
            (tmp_path / "rubbish").write_bytes(b"no archive")
            exchange(signed, other if what == "another archive" else tmp_path / "rubbish")
        main = psutil.Process(running.process.pid)
        old = main.children()
        for worker in old:
            worker.kill()
        wait_for_the_end_of(old)
        # Eight requests on new connections reach every worker.
        for _ in range(8):
            assert two(f"{running.url}/predictions/convnet") == "2"
            assert requests.get(f"{running.url}/contract", timeout=PATIENCE).json()["sha256"] == digest
        assert not {worker.pid for worker in main.children()} & {worker.pid for worker in old}
        assert running.stop() == 0
    assert list(scratch.iterdir()) == []


def test_copy_is_what_is_checked(signed, other, key, tmp_path, monkeypatch):
    """A file that is replaced during the checks is not used: all of them read the copy."""
    digest = sha256(signed)

    def check_and_exchange(copy, public):
        assert copy != signed
        check(copy, public)
        exchange(signed, other)

    from marctl.serve import served_copies

    check = served_copies.check_signature
    monkeypatch.setattr(served_copies, "check_signature", check_and_exchange)
    [served] = take([signed], tmp_path / "served", Terms(public_of(key)))
    assert (served.archive, served.sha256) == (str(signed), digest)
    assert sha256(served.file) == digest
    assert served.file.parent.stat().st_mode & 0o077 == 0


def test_errors_name_the_users_file(signed, key, tmp_path):
    """They do not name the copy, which the user does not know; and no copy is left."""
    public, folder = public_of(key), tmp_path / "served"
    signed.write_bytes(signed.read_bytes()[:-1] + b"x")
    with pytest.raises(BadArchive) as error:
        take([signed], folder, Terms(public))
    assert f"the signature {signed}{SUFFIX} does not match {signed} and the key" in str(error.value)
    with pytest.raises(BadArchive) as error:
        take([signed], folder, Terms())
    assert str(signed) in str(error.value)
    assert str(folder) not in str(error.value)
    assert not folder.exists()


def test_archives_of_several_folders_are_served_together(archive, other, tmp_path):
    """Their copies share one folder; two with the same file name are refused."""
    served = take([archive, other], tmp_path / "served", Terms())
    assert {one.file.name for one in served} == {path.name for path in (tmp_path / "served").iterdir()}
    twin = tmp_path / "twin" / archive.name
    twin.parent.mkdir()
    shutil.copy(archive, twin)
    with pytest.raises(BadArchive, match="two archives are named"):
        take([archive, twin], tmp_path / "served", Terms())


def test_archive_of_a_folder_that_cannot_be_written_is_copied_too(archive, tmp_path, monkeypatch):
    """Others may be able to replace a file that we cannot."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    [served] = take([archive], tmp_path / "served", Terms())
    assert served.file.parent == tmp_path / "served"
