"""TorchServe's way in: the only module that knows TorchServe."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ts.torch_handler.base_handler import BaseHandler

from contract import BadContract, Contract
from images import BadImage, read_pixels
from request_body import picture_of

TEXT = "text/plain; charset=utf-8"
# TorchServe marks what it asks for besides a prediction by these headers of its own.
DESCRIBE, EXPLAIN, ASKED = "describe", "explain", "True"


class ConvNetHandler(BaseHandler):
    """Image bytes in, one label out per request; a bad picture fails its own request alone."""

    contract: Contract

    def initialize(self, context: Any) -> None:
        """Load the model as the manifest says and the contract from model-config.yaml.

        Raises BadContract, before the worker is READY, where the model does not fit the contract.
        """
        super().initialize(context)
        self.contract = Contract.from_config(context.model_yaml_config)
        channels, height, width = self.contract.shape
        outputs = self.inference(self.preprocess([np.zeros((height, width, channels), np.uint8)]))
        if outputs.shape != (1, len(self.contract.labels)):
            raise BadContract(
                f"the model answers one picture with {tuple(outputs.shape)} values, but "
                f"model-config.yaml has {len(self.contract.labels)} labels"
            )

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """Answer each request of a batch by its label, or by a 4xx status and the reason."""
        read = [self._read(index, row, context) for index, row in enumerate(data)]
        pixels = [one for one in read if isinstance(one, np.ndarray)]
        labels = iter(self.postprocess(self.inference(self.preprocess(pixels))) if pixels else ())
        return [next(labels) if isinstance(one, np.ndarray) else one for one in read]

    def preprocess(self, data: list[np.ndarray]) -> torch.Tensor:
        """Scale uint8 pictures (H, W, C) into a float32 batch (N, C, H, W) by the contract."""
        return torch.from_numpy(self.contract.normalize(np.stack(data)))

    def postprocess(self, data: torch.Tensor) -> list[str]:
        """Return the label of the largest log-probability in each row of (N, labels)."""
        return [self.contract.labels[index] for index in data.argmax(dim=1).tolist()]

    def describe_handle(self) -> dict[str, Any]:
        """Tell the contract: what GET /models/NAME?customized=true answers."""
        return {"contract": {key: self.model_yaml_config[key] for key in ("input", "labels")}}

    def _read(self, index: int, row: dict[str, Any], context: Any) -> np.ndarray | Any:
        """Return a request's pixels; or its finished answer, with the status set."""
        headers = _http_headers(context.get_all_request_header(index))
        if headers.get(DESCRIBE) == ASKED:
            return self.describe_handle()
        context.set_response_content_type(index, TEXT)
        if headers.get(EXPLAIN) == ASKED:
            context.set_response_status(501, "Not Implemented", index)
            return "this model has no explanations; send the picture to /predictions instead"
        try:
            return read_pixels(picture_of(row, headers.get("content-type")), self.contract)
        except BadImage as refusal:
            context.set_response_status(400, "Bad Request", index)
            return str(refusal)


def _http_headers(mixed: dict[str, Any]) -> dict[str, str]:
    """Return the HTTP headers by lower-case name: TorchServe mixes them with the types of form fields."""
    return {name.lower(): value for name, value in mixed.items() if isinstance(value, str)}
