"""A worker reads requests faster than with TorchServe's own reader, and reads the same."""

import psutil
import requests

from tests.conftest import DIGITS, ROOT, free_port, make
from tests.support.waiting import PATIENCE


def test_metrics_are_still_told(server):
    """TorchServe's own metrics of the workers are still reported."""
    requests.put(server.predictions, DIGITS["1"], timeout=PATIENCE)
    told = requests.get(f"http://127.0.0.1:{server.port + 2}/metrics", timeout=PATIENCE).text
    for name in ("PredictionTime", "ts_inference_latency_microseconds", "Requests2XX", "WorkerLoadTime"):
        assert f"\n{name}{{" in told


def test_lone_request_does_not_wait_for_others(tmp_path):
    """One image is answered even if the contract lets a worker wait an hour for a full batch."""
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
        assert requests.put(url, DIGITS["4"], timeout=PATIENCE).text == "4"
    finally:
        make("stop", **where)


def test_workers_do_without_torch(server):
    """With ONNX Runtime a worker loads torch only to explain: half a gigabyte less."""
    bodies = (DIGITS["1"], b"no")
    asked = [requests.put(server.predictions, body, timeout=PATIENCE).status_code for body in bodies]
    described = requests.get(f"{server.management}/models/convnet?customized=true", timeout=PATIENCE)
    json = {"Accept": "application/json; top_k=3; show_input=true"}
    told = requests.put(server.predictions, DIGITS["1"], headers=json, timeout=PATIENCE)
    explained = requests.put(
        server.predictions.replace("predictions", "explanations"), b"x", timeout=PATIENCE
    )
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
