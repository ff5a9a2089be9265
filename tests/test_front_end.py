"""A worker reads its requests faster than TorchServe does, and reads the same."""

import random
import socket
import struct
import threading
from types import SimpleNamespace

import psutil
import pytest
import requests
from ts.protocol import otf_message_handler as protocol

import greedy_batches
from conftest import DIGITS, ROOT, free_port, make
from front_end import METRICS_EVERY, Receiver, _now_and_then, speed_up

TORCHSERVES_OWN = protocol._retrieve_inference_msg
TIMEOUT = 30


def field(data: bytes) -> bytes:
    return struct.pack("!i", len(data)) + data


def request(noise: random.Random) -> bytes:
    """Return a request of TorchServe's: random headers and fields, as many and as long as it likes."""
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
    """Return what a reader makes of a message that comes in pieces of any length."""
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
    """Close the buffer, which a worker keeps to its end."""
    receiver._read.__self__.close()


@pytest.mark.parametrize("seed", range(20))
def test_batch_is_read_as_torchserve_reads_it(seed):
    """Whatever is in it and however it is cut into pieces, each request is the one of TorchServe's parser."""
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
    """Values that come faster than anybody asks for them are dropped, those of another metric are not."""
    seen = []
    add = _now_and_then(lambda *value: seen.append(value))
    for value in range(1000):
        add("PredictionTime", value)
    add("Other", 1)
    assert seen[0] == ("PredictionTime", 0)
    assert ("Other", 1) in seen
    assert METRICS_EVERY < 15  # or Prometheus, which asks every 15 seconds, would see old values


def test_another_torchserve_is_left_alone(monkeypatch):
    """What is known of one version is not done to another."""
    monkeypatch.setattr("ts.__version__", "0.13.0")
    monkeypatch.setattr(protocol, "_retrieve_inference_msg", TORCHSERVES_OWN)
    speed_up(SimpleNamespace(add_time=print))
    assert protocol._retrieve_inference_msg is TORCHSERVES_OWN


def test_metrics_are_still_told(server):
    """What TorchServe measures of the workers arrives under its name."""
    requests.put(server.predictions, DIGITS["1"], timeout=TIMEOUT)
    told = requests.get(f"http://127.0.0.1:{server.port + 2}/metrics", timeout=TIMEOUT).text
    for name in ("PredictionTime", "ts_inference_latency_microseconds", "Requests2XX", "WorkerLoadTime"):
        assert f"\n{name}{{" in told


def test_installed_torchserve_is_the_known_one(tmp_path):
    """The class is the one whose bytes are known, and each edit changes what it says it changes."""
    assert greedy_batches.install(tmp_path)
    changed, original = (tmp_path / greedy_batches.CLASS).read_bytes(), greedy_batches._original()
    (load, zero), (branch, other_branch) = greedy_batches.EDITS
    after_load, after_branch = load + len(zero), branch + len(other_branch)
    between = original[after_load:branch]
    assert changed == original[:load] + zero + between + other_branch + original[after_branch:]
    # aload_0, getfield, i2l, lstore; and lload, lconst_0, lcmp, ifgt.
    assert (original[load], original[load + 1], original[load + 4 : load + 6]) == (0x2A, 0xB4, b"\x85\x37")
    assert original[branch - 4 : branch + 1] == b"\x16\x06\x09\x94\x9d"
    assert other_branch == b"\x9c"


def test_unknown_torchserve_is_left_alone(tmp_path, monkeypatch):
    """Another version's class is not touched, and one that was changed earlier is not used for it."""
    greedy_batches.install(tmp_path)
    monkeypatch.setattr(greedy_batches, "SHA256", "0" * 64)
    assert not greedy_batches.install(tmp_path)
    assert not (tmp_path / greedy_batches.CLASS).exists()


def test_lone_request_does_not_wait_for_others(tmp_path):
    """Though its contract has a worker wait an hour for a full batch, one picture is answered."""
    patient = tmp_path / "patient.yaml"
    contract = (ROOT / "model" / "model-config.yaml").read_text()
    patient.write_text(contract.replace("maxBatchDelay: 1", "maxBatchDelay: 3600000"))
    where = {"RUN": str(tmp_path / "run"), "PORT": str(free_port()), "MAR": str(tmp_path / "convnet.mar")}
    try:
        built = make("archive", CONFIG=str(patient), MAR=where["MAR"])
        assert built.returncode == 0, built.stderr
        served = make("serve", **where)
        assert served.returncode == 0, served.stderr
        url = f"http://127.0.0.1:{where['PORT']}/predictions/convnet"
        assert requests.put(url, DIGITS["4"], timeout=TIMEOUT).text == "4"
    finally:
        make("stop", **where)


def test_workers_do_without_torch(server):
    """A worker that answers by ONNX Runtime never loads torch until it explains: half a gigabyte less."""
    bodies = (DIGITS["1"], b"no")
    asked = [requests.put(server.predictions, body, timeout=TIMEOUT).status_code for body in bodies]
    described = requests.get(f"{server.management}/models/convnet?customized=true", timeout=TIMEOUT)
    json = {"Accept": "application/json; top_k=3; show_input=true"}
    told = requests.put(server.predictions, DIGITS["1"], headers=json, timeout=TIMEOUT)
    explained = requests.put(server.predictions.replace("predictions", "explanations"), b"x", timeout=TIMEOUT)
    statuses = [*asked, described.status_code, told.status_code, explained.status_code]
    assert statuses == [200, 400, 200, 200, 400]
    workers = [
        process
        for process in psutil.process_iter()
        if str(server.run) in process_variable(process, "LOG_LOCATION") and "python" in process.name()
    ]
    assert len(workers) == 2
    for worker in workers:
        files = " ".join(mapped.path for mapped in worker.memory_maps())
        assert "onnxruntime" in files
        assert "libtorch" not in files


def process_variable(process: psutil.Process, name: str) -> str:
    try:
        return process.environ().get(name, "")
    except psutil.Error:
        return ""
