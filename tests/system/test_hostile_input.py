"""Hostile input (corrupt images, malformed requests, floods) gets a label or an error message."""

import json
import os
from functools import partial

import pytest
import requests
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench.hostile.forms import FIELDS, MULTIPART, URLENCODED, form, many, part
from bench.hostile.isolated import DIED, SENTENCE, answered
from bench.hostile.mutations import mutation, originals
from bench.hostile.requests import Hostile, hostile_requests, request
from bench.hostile.sending import exchange, hostile_over_http, mutations_over_http, sent, sound
from bench.servers.stack import BOUND, Stack, pids, settled
from classifier.errors import BadImage, BadRequest
from classifier.image.decode import read_pixels
from classifier.messages import Request
from classifier.protocols.body import files_of
from tests.conftest import DIGITS, free_port, make
from tests.support.waiting import PATIENCE

FILES = originals()
HOSTILE = hostile_requests(DIGITS["2"])
SEVERAL = 340  # corrupt files of each format
OVER_HTTP = 270  # for all formats together
NAME_CHARACTERS = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":")
# The same examples in every run, however slow the machine.
reproducible = settings(
    derandomize=True, deadline=None, database=None, max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """A reverse proxy in front of a TorchServe."""
    run = tmp_path_factory.mktemp("up")
    running = Stack(free_port(), free_port(), run)
    ports = {"PORT": str(running.port), "DOOR": str(running.door)}
    done = make("up", RUN=str(run), RATE="100000", CONNECTIONS="1000", **ports)
    assert done.returncode == 0, done.stderr
    yield running
    make("stop", RUN=str(run))


@pytest.fixture
def unharmed(up):
    """The processes behind the proxy are the same before and after, and answer correctly."""
    before = pids(up)
    yield up
    for digit, image in DIGITS.items():
        assert requests.put(up.predictions, image, timeout=PATIENCE).text == digit
    assert pids(up) == before


@pytest.fixture(scope="module")
def at_first(up):
    """The memory before any hostile input."""
    return settled(up)


def test_files_are_whole_before_they_are_spoilt(contract):
    """Every file that is corrupted below is a valid image."""
    for files in FILES.values():
        for body in files:
            assert read_pixels(body, contract).shape == (28, 28, 1)


def test_spoilt_files_are_the_same_in_every_run():
    """A number always gives the same file, so a finding can be reproduced."""
    again = originals()
    assert all(mutation(FILES, kind, 7, 0) == mutation(again, kind, 7, 0) for kind in FILES)
    assert len({mutation(FILES, "PNG", number, 0) for number in range(100)}) > 80


@pytest.mark.parametrize("kind", FILES)
def test_spoilt_image_gets_a_label_or_a_sentence(kind, archive):
    """Bit flips, missing, repeated and mixed parts, extreme lengths: nothing dies or is 500."""
    body = partial(mutation, FILES, kind, seed=0)
    outcomes = list(answered(archive, range(SEVERAL), body))
    assert [one.number for one in outcomes] == list(range(SEVERAL))
    faults = [(one.number, fault) for one in outcomes if (fault := one.fault(list(DIGITS))) is not None]
    assert faults == []
    assert {one.status for one in outcomes} == {200, 400}


def deadly(number: int) -> bytes:
    """Return an image, but kill the process that requests the second one."""
    if number == 1:
        os._exit(3)
    return DIGITS["2"]


def test_death_is_seen_and_the_next_image_is_answered(archive):
    """The input that kills the process is identified, and the others are answered."""
    outcomes = list(answered(archive, range(3), deadly))
    assert [(one.status, one.end) for one in outcomes] == [(200, ""), (0, DIED), (200, "")]
    assert outcomes[1].fault(list(DIGITS)) == "the process died: exit code 3"


@reproducible
@given(
    file=st.sampled_from([b"", *(body for files in FILES.values() for body in files)]),
    place=st.integers(0, 100),
    patch=st.binary(max_size=100),
    kept=st.booleans(),
)
def test_any_bytes_are_a_image_or_refused(file, place, patch, kept, contract):
    """Any bytes in or after an image's header give pixels or BadImage, and no other error."""
    body = file[:place] + patch + (file[place + len(patch) :] if kept else b"")
    try:
        said = str(read_pixels(body, contract).shape)
    except BadImage as refused:
        said = str(refused)
    assert said == "(28, 28, 1)" or "send" in said
    assert len(said) <= SENTENCE


@reproducible
@given(names=st.lists(st.text(max_size=200), min_size=65, max_size=80, unique=True))
@example([f"{number} {'a' * 100}" for number in range(1000)])
def test_sentence_about_fields_is_short(names):
    """However many fields there are and whatever their names, the error does not repeat them all."""
    with pytest.raises(BadRequest) as refused:
        files_of(Request(headers={"content-type": MULTIPART}, fields=dict.fromkeys(names, b"")), ())
    assert len(str(refused.value)) <= SENTENCE


def test_mutations_over_http(server):
    """The same through a real TorchServe."""
    tally = mutations_over_http(server.port, range(OVER_HTTP), 0, "TorchServe")
    assert tally.findings == {}
    assert tally.good + tally.refused == OVER_HTTP


def test_form_of_long_names_ends_no_worker(server):
    """Two megabytes of field names are not echoed: TorchServe would end the worker."""
    body = form(*(part(b"x", b'form-data; name="' + bytes([97 + i]) * 100_000 + b'"') for i in range(20)))
    reply = exchange(server.port, [request(body, f"Content-Type: {MULTIPART}")])
    assert reply.status == 400
    told = json.loads(reply.text)["error"]["message"]
    assert told.startswith(f"the field {'a' * 40}…: cannot read 1 bytes")
    assert len(told) < SENTENCE


@pytest.mark.nginx
class TestFrontDoor:
    """Requests through the reverse proxy of `make up`."""

    @pytest.mark.parametrize("kind", [kind for kind in HOSTILE if kind != "slow senders"])
    def test_hostile_request_gets_a_sentence(self, kind, at_first, unharmed):
        """It gets 2xx or 4xx with a sentence, or is closed if the client disconnected."""
        assert at_first
        tally = hostile_over_http(unharmed.door, HOSTILE[kind], kind)
        assert tally.findings == {}
        assert tally.good + tally.refused + tally.closed == len(HOSTILE[kind])

    def test_spoilt_images(self, at_first, unharmed):
        """Corrupt images through the proxy, too."""
        assert at_first
        tally = mutations_over_http(unharmed.door, range(OVER_HTTP, 2 * OVER_HTTP), 0, "reverse proxy")
        assert tally.findings == {}
        assert tally.good + tally.refused == OVER_HTTP

    def test_gigabyte_is_refused_early(self, unharmed):
        """Of a body without a length, little more than the limit is read."""
        for one in HOSTILE["bodies of a gigabyte"]:
            reply = sent(unharmed.door, one)
            assert reply.status == 413
            assert reply.sent < 2**28

    def test_form_that_cannot_be_read_is_the_clients_fault(self, unharmed):
        """TorchServe answers 500; the proxy answers 400 with a hint."""
        body = form(part(DIGITS["2"], b"form-data"))  # a field without a name
        reply = exchange(unharmed.door, [request(body, f"Content-Type: {MULTIPART}")])
        assert reply.status == 400
        assert '"the form cannot be read"' in reply.text

    @pytest.mark.parametrize(
        ("kind", "length", "said"),
        [
            (URLENCODED, 10, (400, "a URL-encoded form cannot hold an image")),
            (MULTIPART, 10_000_000, (413, "the form is too large")),
            (MULTIPART, -1, (413, "has no Content-Length")),
        ],
        ids=["web-form", "large", "without-a-length"],
    )
    def test_costly_form_is_kept_out(self, kind, length, said, unharmed):
        """TorchServe parses forms field by field, so the proxy refuses those that may have millions."""
        chunked = ["Transfer-Encoding: chunked"] if length == -1 else []
        reply = exchange(unharmed.door, [request(b"", f"Content-Type: {kind}", *chunked, length=length)])
        assert (reply.status, said[1] in reply.text) == (said[0], True)

    def test_form_of_many_fields_gets_a_sentence(self, unharmed):
        """Twenty thousand fields are counted, not listed."""
        reply = exchange(unharmed.door, [request(many(FIELDS), f"Content-Type: {MULTIPART}")])
        assert (reply.status, f"and {FIELDS - 5:,} more" in reply.text) == (400, True)

    def test_unreadable_forms_do_not_fill_the_disk(self, unharmed):
        """TorchServe's stack trace for each goes to a rotated log, not to the console."""
        console = unharmed.run / "logs" / "console.log"
        before = console.stat().st_size
        bad = request(form(part(b"x", b"form-data")), f"Content-Type: {MULTIPART}")
        assert all(exchange(unharmed.door, [bad]).status == 400 for _ in range(20))
        assert console.stat().st_size == before

    @reproducible
    @given(
        method=st.sampled_from(["GET", "PUT", "POST", "HEAD", "DELETE", "TRACE", "OPTIONS", "PATCH", "X"]),
        target=st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), max_size=60),
        prefix=st.sampled_from(["", "/", "/predictions/", "/predictions/convnet/", "/health/", "http://a/"]),
    )
    def test_any_method_and_target_gets_a_sentence(self, method, target, prefix, up):
        """None reaches anything but the page, however "/" is written, or causes a 5xx."""

        def asked(method):
            return Hostile("any", lambda: [request(target=prefix + target, method=method)], method=method)

        reply = sent(up.door, asked(method))
        assert sound(asked(method), reply), reply
        if reply.status < 400:
            assert method in {"GET", "HEAD"}
            assert sent(up.door, asked("GET")).text.startswith("<!doctype html>")

    @reproducible
    @given(
        name=st.text(NAME_CHARACTERS, min_size=1, max_size=30),
        value=st.binary(max_size=100).filter(lambda value: not set(value) & set(b"\r\n")),
        body=st.binary(max_size=100),
    )
    def test_any_header_and_body_gets_a_sentence(self, name, value, body, up):
        """Arbitrary header bytes get 2xx or 4xx, or a closed connection if the length was wrong."""
        sending = request(body, name.encode() + b": " + value)
        one = Hostile("any", lambda: [sending], half_close=True)
        reply = sent(up.door, one)
        assert sound(one, reply), reply

    def test_memory_comes_back(self, up, at_first):
        """Afterwards each process uses about as much memory as before."""
        now = settled(up, at_first)
        assert [kind for kind in BOUND if now[kind] > at_first[kind] + BOUND[kind]] == []
