"""Triton by PyTriton, with its dynamic batches: Triton answers HTTP and hands batches to the functions here."""

import argparse
import signal

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from classifier import Classifier


class Digits:
    """Reads and answers a batch of pictures."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    @batch
    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return the digits of a batch, bytes (N, 1), for its picture files, bytes (N, 1)."""
        labels = self.classifier.label([self.classifier.read(picture) for picture in image[:, 0]])
        return {"digit": np.array([[label.encode()] for label in labels])}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    # PyTriton stops its Triton on an interrupt alone; a terminated process would leave it behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=parser.parse_args().port,
        allow_grpc=False,
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="digits",
            # One instance a core. They are threads of this process: PyTriton starts no others.
            infer_func=[Digits(), Digits()],
            inputs=[Tensor(name="image", dtype=np.bytes_, shape=(1,))],
            outputs=[Tensor(name="digit", dtype=np.bytes_, shape=(1,))],
            config=ModelConfig(max_batch_size=16, batcher=DynamicBatcher(max_queue_delay_microseconds=1000)),
        )
        triton.serve()
