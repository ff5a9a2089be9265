"""Triton, from PyTriton's wheel, with its Python backend: dynamic batches, two instances (processes)."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.utils import dlpack

from bench.servers.others.classifier import load

MODEL = "triton_model.py"  # model.py, the backend's default, would shadow the folder with our class
# Ragged: files of different lengths can be in the same batch.
CONFIG = f"""
backend: "python"
default_model_filename: "{MODEL}"
max_batch_size: 16
dynamic_batching {{ max_queue_delay_microseconds: 1000 }}
input {{ name: "image" data_type: TYPE_UINT8 dims: [ -1 ] allow_ragged_batch: true }}
output {{ name: "digit" data_type: TYPE_UINT8 dims: [ -1 ] }}
instance_group {{ count: 2 kind: KIND_CPU }}
"""


class TritonPythonModel:
    """The model, under the name that the Python backend expects.

    Tensors are passed with DLPack: this backend's own conversion misreads NumPy 2's arrays.
    """

    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002 the backend's signature
        """Load the model, in an instance."""
        self.classifier = load()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return the digits of a batch; a request's image is an image file's bytes, uint8 (1, length)."""
        import triton_python_backend_utils as backend  # Triton provides it, only in this process

        images = [backend.get_input_tensor_by_name(request, "image") for request in requests]
        files = [dlpack.from_dlpack(image.to_dlpack()).numpy().tobytes() for image in images]
        labels = self.classifier.label([self.classifier.read(file) for file in files])
        digits = [dlpack.to_dlpack(torch.tensor([[*label.encode()]], dtype=torch.uint8)) for label in labels]
        return [backend.InferenceResponse([backend.Tensor.from_dlpack("digit", digit)]) for digit in digits]


def serve(port: int, folder: Path) -> int:
    """Serve from a model repository and a backend put together in the folder, until a signal ends it."""
    triton = Path(sysconfig.get_path("purelib")) / "pytriton/tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    backend = Path(shutil.copytree(triton / "backends/python", folder / "backends/python"))
    shutil.copy(triton / "python_backend_stubs" / version / "triton_python_backend_stub", backend)
    model = folder / "models/digits"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(CONFIG)
    (model / "1" / MODEL).write_text("from bench.servers.others.triton_server import TritonPythonModel\n")
    # The instances load libpython by name: one of another patch version fails on this Python's modules.
    libraries = f"{triton.parents[1] / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}"
    command = [triton / "bin/tritonserver", f"--model-repository={folder / 'models'}"]
    command += [f"--backend-directory={folder / 'backends'}", "--allow-grpc=false", "--allow-metrics=false"]
    command += ["--http-address=127.0.0.1", f"--http-port={port}"]
    # An instance ignores PYTHONPATH. The first python3 on its PATH determines its environment.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    server = subprocess.Popen(command, env=os.environ | {"LD_LIBRARY_PATH": libraries, "PATH": path})

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 the signature of a signal's handler
        server.terminate()

    signal.signal(signal.SIGTERM, stop)
    return server.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    with tempfile.TemporaryDirectory() as folder:
        status = serve(parser.parse_args().port, Path(folder))
    sys.exit(status)
