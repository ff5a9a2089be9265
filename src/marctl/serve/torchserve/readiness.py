"""When TorchServe is ready: all workers are ready, and a real image is answered correctly.

TorchServe's own /ping reports Healthy while its workers still load, or die and are restarted.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import requests

from classifier.headers import HEALTH_CHECK
from marctl.archive.mar import known_answer, known_answers
from marctl.errors import UserError
from marctl.serve.processes import Process, lives, processes
from marctl.serve.scratch import remedy
from marctl.serve.torchserve.instance import Running, Served, process_of
from marctl.serve.torchserve.tokens import INFERENCE, MANAGEMENT

POLL = 0.1  # seconds between two requests
ANSWER = 10.0  # seconds for one answer
DIED = "Backend worker process died."
# A worker that starts goes through these states; any other means its end, though TorchServe retries for
# minutes.
WORKER_ENDED = re.compile(r"State change \S+ -> WORKER_(?!STARTED|MODEL_LOADED)")
# An archive that TorchServe itself could not load gets no worker at all; the next line of the log says why.
NOT_TAKEN = re.compile(r"Failed to load models?: .*\n(.+)\n")
WORKER = "model_service_worker"
LOADING, STARTING = "while it loaded the model", "while it started"
TRACEBACK = "Traceback (most recent call last):"
NO_WORD = "it left no message (was it killed, perhaps for lack of memory?)"
LOG_DELAY = 1.0  # seconds until a dead worker's output is in its log
# The prefix that log4j writes before each line of a worker: time, level, the worker's name, the logger.
LOG_PREFIX = re.compile(r"^\S+ \[\w+ *\] (\S+)-std(?:out|err) MODEL_LOG - ")


class NotReady(UserError):
    """TorchServe ended, a worker died, or an answer was wrong; the message says which and why."""


class NotTaken(NotReady):
    """TorchServe is running, but does not serve an archive that it was started with."""


MARK = {HEALTH_CHECK: "1"}
# A function that returns the authorization header.
Authorize = Callable[[], dict[str, str]]


def workers_of(state: Running, served: Served) -> tuple[int, int]:
    """Return how many workers of a model are READY and how many there should be; (0, 1) without an answer.

    Raises NotReady if the request is refused or the model is not served, and UserError.
    """
    url = f"{state.management}/models/{served.model}/{served.version}"
    try:
        with session() as asking:
            authorize = partial(state.authorization, MANAGEMENT)
            reply = _authorized(partial(asking.get, url, timeout=ANSWER), authorize)
    except requests.RequestException:
        return 0, 1
    if reply.status_code == requests.codes.not_found:  # it loads all archives before it answers
        raise NotTaken(
            f"TorchServe did not load the archive of {served.model} {served.version}; check the free space "
            "for its logs and in TMPDIR"
        )
    if not reply.ok:
        raise NotReady(f"{url} answers {reply.status_code}: {reply.text.strip()}")
    [described] = reply.json()
    return sum(w["status"] == "READY" for w in described["workers"]), int(described["minWorkers"])


def wait_until_ready(state: Running, logs: Path, timeout: float) -> None:
    """Wait until all that `state` serves is ready.

    Raises NotReady as soon as that has become impossible, and UserError.
    """
    end = time.monotonic() + timeout
    workers: dict[tuple[int, int], Process] = {}
    while time.monotonic() < end:
        if (java := process_of(state)) is None:
            raise NotReady(f"TorchServe ended while it started:\n{tail(logs / 'console.log')}")
        _check_start(java, workers, logs)
        try:
            counts = [workers_of(state, one) for one in state.served]
        except NotTaken:
            _check_start(java, workers, logs)  # raises with the reason, if it is in the log
            raise
        if all(ready >= wanted for ready, wanted in counts):
            for one in state.served:
                _prove_one(state, one)
            return
        time.sleep(POLL)
    log = tail(logs / "model_log.log") or tail(logs / "ts_log.log") or "the logs are empty"
    raise NotReady(f"no worker was ready after {timeout:.0f} seconds:\n{log}")


def _check_start(java: Process, workers: dict[tuple[int, int], Process], logs: Path) -> None:
    """Raise NotReady, with the reason, if an archive was not loaded or a worker has died.

    `workers` are those seen so far, by PID and start. TorchServe logs the end of a worker, unless the disk is
    full.
    """
    log = _text(logs / "ts_log.log")
    if (found := NOT_TAKEN.search(log)) is not None:
        error = found[1].strip()
        raise NotReady(f"TorchServe could not load the archive: {error}{_advice(error)}")
    workers |= {(one.pid, one.started): one for one in _workers_below(java)}
    if (ended := WORKER_ENDED.search(log)) is None and all(map(lives, workers.values())):
        return
    time.sleep(LOG_DELAY)
    # By now TorchServe has logged the state change, if it could.
    ended = ended or WORKER_ENDED.search(_text(logs / "ts_log.log"))
    when = LOADING if ended is not None and "WORKER_STARTED ->" in ended[0] else STARTING
    if words := last_words(logs / "model_log.log"):
        error = _error_in(words)
        trace = "" if words == error else f"\n{words}"
        raise NotReady(f"a worker died {when}: {error}{_advice(error)}{trace}")
    log = tail(logs / "model_log.log")
    raise NotReady(f"a worker died {when}: {NO_WORD}" + (f"; the end of its log:\n{log}" if log else ""))


def _workers_below(java: Process) -> Iterator[Process]:
    for one in processes():
        if one.parent == java.pid and any(WORKER in word for word in one.command):
            yield one


def _advice(error: str) -> str:
    advice = remedy(error)
    return f"; {advice}" if advice else ""


def fault_of(state: Running) -> str | None:
    """Return why a running server is not ready, a worker or a wrong answer; None if it is ready."""
    try:
        for one in state.served:
            _check_workers(state, one)
            _prove_one(state, one)
    except UserError as fault:
        return str(fault)
    return None


def prove(state: Running, seconds: float, go_on: Callable[[], None]) -> int:
    """Send all golden images of all archives repeatedly; return how many were answered correctly.

    An unsealed archive has none: only its workers are checked.

    Raises NotReady at the first wrong answer, and whatever `go_on`, called before each request, raises.
    """
    count = 0
    end = time.monotonic() + seconds
    with session() as asking:
        while time.monotonic() < end:
            for one in state.served:
                go_on()
                if not one.sealed:  # it has no golden images; its workers must stay ready
                    _check_workers(state, one)
                    time.sleep(POLL)
                    continue
                url, authorize = _access_to(state, one)
                for known in known_answers(one.file):
                    go_on()
                    _check(asking, url, known, ANSWER, authorize)
                    count += 1
    return count


def _check_workers(state: Running, served: Served) -> None:
    """Raise NotReady if a worker is not ready."""
    ready, wanted = workers_of(state, served)
    if ready < wanted:
        raise NotReady(f"{ready} of {wanted} workers of {served.model} {served.version} are ready")


def _prove_one(state: Running, served: Served) -> None:
    """Raise NotReady if the first golden image, if there is one, does not get its answer."""
    if served.sealed:
        url, authorize = _access_to(state, served)
        check_answer(url, served.file, authorize=authorize)


def _access_to(state: Running, served: Served) -> tuple[str, Authorize]:
    """Return the address of a version's predictions, and a function for its authorization header."""
    url = f"{state.inference}/predictions/{served.model}/{served.version}"
    return url, partial(state.authorization, INFERENCE)


def check_answer(url: str, archive: Path, patience: float = ANSWER, authorize: Authorize = dict) -> None:
    """Raise NotReady if the archive's first golden image, sent to `url`, does not get its answer.

    `patience` is in seconds; `authorize` returns the authorization header.
    """
    with session() as asking:
        _check(asking, url, known_answer(archive), patience, authorize)


def _check(
    session: requests.Session, url: str, known: tuple[str, bytes, str], patience: float, authorize: Authorize
) -> None:
    name, image, label = known
    try:
        reply = _authorized(partial(session.put, url, image, timeout=patience), authorize)
    except requests.RequestException as error:
        raise NotReady(f"{url} does not answer: {error}") from error
    if (reply.status_code, reply.text) != (requests.codes.ok, label):
        got = f"{reply.status_code}: {reply.text}"
        raise NotReady(f"{url} must answer the golden image {name} with {label}, got {got}")


def session() -> requests.Session:
    """Return an HTTP session for a server on this machine."""
    made = requests.Session()
    made.trust_env = False  # this machine's own address needs no proxy
    return made


def _authorized(send: Callable[..., requests.Response], authorize: Authorize) -> requests.Response:
    """Send with the authorization header, and once more if the token has just changed."""
    headers = authorize()
    reply = send(headers=MARK | headers)
    if reply.status_code == requests.codes.bad_request and (new := authorize()) != headers:
        # The token expired or was replaced during the request.
        reply = send(headers=MARK | new)
    return reply


def last_words(log: Path) -> str:
    """Return the output of the first worker that died, from its traceback on; "" if there is no traceback."""
    worker = None
    words: list[str] = []
    for line in _text(log).splitlines():
        found = LOG_PREFIX.match(line)
        if found is None:
            continue
        text = line[found.end() :]
        if worker is None and text.startswith(TRACEBACK):
            worker = found[1]
        if worker == found[1]:
            if words and (not text or DIED in text):  # what follows was caused by it, or is the next attempt
                break
            words.append(text)
    return "\n".join(words)


def _error_in(words: str) -> str:
    """Return the line of a traceback that names the error: the first one after the indented frames."""
    lines = words.splitlines()
    return next((line for line in lines[1:] if not line.startswith(" ")), lines[0])


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log."""
    return "\n".join(_text(log).splitlines()[-lines:])


def _text(log: Path) -> str:
    try:
        return log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
