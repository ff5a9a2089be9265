"""A worker reads its requests faster than TorchServe does, with the same result."""

import random
import socket
import struct
import threading
from types import SimpleNamespace

import pytest
from ts.protocol import otf_message_handler as protocol

from classifier.torchserve.socket import METRICS_EVERY, Receiver, _now_and_then, speed_up

TORCHSERVES_OWN = protocol._retrieve_inference_msg


def field(data: bytes) -> bytes:
    return struct.pack("!i", len(data)) + data


def request(noise: random.Random) -> bytes:
    """Return a request in TorchServe's format, with random headers and fields of random number and length."""
    end = struct.pack("!i", -1)
    text = [noise.randbytes(noise.randrange(20)).hex().encode() for _ in range(40)]
    names = noise.choices(text, k=noise.randrange(9))
    headers = b"".join(field(name) + field(noise.choice(text)) for name in names)
    fields = b"".join(
        field(noise.choice(text)) + field(b"image/" + noise.choice(text)) + field(noise.randbytes(size))
        for size in noise.choices([0, 1, 300, 70_000, 300_000], k=noise.randrange(4))
    )
    return field(noise.choice(text)) + headers + end + fields + end


def received(read, message: bytes, noise: random.Random) -> list:
    """Return what a reader makes of a message that arrives in pieces of random length."""
    here, there = socket.socketpair()

    def send() -> None:
        rest = message
        while rest:
            piece = noise.choice([1, 3, 1000, 200_000])
            there.sendall(rest[:piece])
            rest = rest[piece:]

    sender = threading.Thread(target=send)
    sender.start()
    with here, there:
        batch = read(here)
        sender.join()
    return batch


def close(receiver: Receiver) -> None:
    """Close the buffer, which a worker keeps until it ends."""
    receiver._read.__self__.close()


@pytest.mark.parametrize("seed", range(20))
def test_batch_is_read_as_torchserve_reads_it(seed):
    """Whatever a batch holds and however it is split, the requests equal those of TorchServe's parser."""
    noise = random.Random(seed)  # noqa: S311 no secret
    message = b"".join(request(noise) for _ in range(noise.randrange(1, 17))) + struct.pack("!i", -1)
    receiver = Receiver()
    ours = received(receiver.batch, message, noise)
    close(receiver)
    assert ours == received(TORCHSERVES_OWN, message, noise)
    assert ours


@pytest.mark.parametrize("cut", [0, 3, 4, 30, 500])
def test_worker_ends_with_its_front_end(cut):
    """A connection that ends, between two batches or within one, ends the worker without an error."""
    message = request(random.Random(3)) * 2  # noqa: S311 no secret
    here, there = socket.socketpair()
    with here:
        with there:
            there.sendall(message[:cut])
        receiver = Receiver()
        with pytest.raises(SystemExit) as ended:
            receiver.batch(here)
        close(receiver)
    assert ended.value.code == 0


def test_gauge_passes_on_its_first_value_and_later_ones():
    """Values that come faster than they are scraped are dropped; those of another metric are not."""
    seen = []
    add = _now_and_then(lambda *value: seen.append(value))
    for value in range(1000):
        add("PredictionTime", value)
    add("Other", 1)
    assert seen[0] == ("PredictionTime", 0)
    assert ("Other", 1) in seen
    assert METRICS_EVERY < 15  # or Prometheus, which scrapes every 15 seconds, would see old values


def test_another_torchserve_is_left_alone(monkeypatch):
    """A change made for one version is not applied to another."""
    monkeypatch.setattr("ts.__version__", "0.13.0")
    monkeypatch.setattr(protocol, "_retrieve_inference_msg", TORCHSERVES_OWN)
    speed_up(SimpleNamespace(add_time=print))
    assert protocol._retrieve_inference_msg is TORCHSERVES_OWN
