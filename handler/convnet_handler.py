"""The TorchServe entry point: grayscale, resize, normalize, run the model, take the argmax."""

from __future__ import annotations

from typing import Any

import numpy as np
from ts.torch_handler.base_handler import BaseHandler

from classifier.torchserve.adapter import Adapter, as_bytes, open_classifier


class ConvNetHandler(BaseHandler):
    """Image bytes in, one label out per request.

    `preprocess`, `inference` and `postprocess` are the steps for a batch of valid images. `handle` takes the
    same steps through the core, which also reads forms and JSON and gives each bad image its own error.
    """

    def initialize(self, context: Any) -> None:
        """Open the archive as its manifest and model-config.yaml describe, and check its golden answers.

        Raises BadContract, GoldenMismatch or Altered; the worker then does not become READY.
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
        return self.classifier.preprocess(images)  # normalized with the training mean and deviation

    def inference(self, data: np.ndarray) -> np.ndarray:
        """Return the model's outputs, float32 (N, labels), for a float32 batch (N, C, H, W)."""
        return self.classifier.inference(data)

    def postprocess(self, data: np.ndarray) -> list[str]:
        """Return the label of the largest output (argmax) in each row of float32 (N, labels)."""
        return self.classifier.postprocess(data)

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[str | bytes]:
        """Answer each request of a batch with its label, with what else it asked for, or with an error."""
        return self.adapter.handle(data, context)

    def describe_handle(self) -> dict[str, Any]:
        """Return what identifies the archive, for GET /models/NAME?customized=true."""
        return self.classifier.description
