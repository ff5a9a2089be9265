"""TorchServe's way into the archive: grayscale, resize, normalize, the model, argmax."""

from __future__ import annotations

from typing import Any

import numpy as np
from ts.torch_handler.base_handler import BaseHandler

from classifier.torchserve.adapter import Adapter, as_bytes, open_classifier


class ConvNetHandler(BaseHandler):
    """Image bytes in, one label out per request.

    `preprocess`, `inference` and `postprocess` are the steps of a batch of good images. `handle` takes the
    same steps by way of the core, which also reads forms and JSON, and answers a bad image of a batch by an
    error of its own.
    """

    def initialize(self, context: Any) -> None:
        """Open the archive, as its manifest and model-config.yaml say, and hold it to its golden answers.

        Raises BadContract, GoldenMismatch or Altered; such a worker does not become READY.
        """
        self.context = context
        self.manifest = context.manifest
        self.classifier = open_classifier(context)
        self.adapter = Adapter(self.classifier, context)
        self.initialized = True

    def preprocess(self, data: list[dict[str, Any]]) -> np.ndarray:
        """Turn image files into a float32 batch (N, C, H, W). Raises BadImage."""
        bodies = [as_bytes(row.get("data") or row.get("body")) for row in data]
        images = [self.classifier.read_pixels(body) for body in bodies]  # uint8 (H, W, C): grayscale, resized
        return self.classifier.preprocess(images)  # normalized by the mean and deviation of training

    def inference(self, data: np.ndarray) -> np.ndarray:
        """Return the model's outputs, float32 (N, labels), for a float32 batch (N, C, H, W)."""
        return self.classifier.inference(data)

    def postprocess(self, data: np.ndarray) -> list[str]:
        """Return the label of the largest output (argmax) in each row of float32 (N, labels)."""
        return self.classifier.postprocess(data)

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[str | bytes]:
        """Answer each request of a batch by its label, by what else it asked for, or by an error."""
        return self.adapter.handle(data, context)

    def describe_handle(self) -> dict[str, Any]:
        """Return which archive this is: what GET /models/NAME?customized=true answers."""
        return self.classifier.description
