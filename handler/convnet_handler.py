"""TorchServe's way in: the only module that knows TorchServe."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ts.torch_handler.base_handler import BaseHandler

import canonical
import golden
from contract import BadContract, Contract
from images import BadImage, read_pixels
from request_body import picture_of
from runtimes import SAFETENSORS, as_module, load_exported, load_safetensors

logger = logging.getLogger(__name__)

TEXT = "text/plain; charset=utf-8"
# TorchServe marks what it asks for besides a prediction by these headers of its own.
DESCRIBE, EXPLAIN, ASKED = "describe", "explain", "True"


class ConvNetHandler(BaseHandler):
    """Image bytes in, one label out per request; a bad picture fails its own request alone."""

    model: Any  # what answers
    eager: Any  # the class with its weights, or whatever else the manifest names: the reference
    contract: Contract
    folder: Path
    description: dict[str, Any]

    def initialize(self, context: Any) -> None:
        """Load the model as the manifest says and the contract from model-config.yaml.

        Raises BadContract where the model does not fit the contract, and GoldenMismatch where it does
        not answer as it did when the archive was built: such a worker does not become READY.
        """
        super().initialize(context)
        self.folder = Path(context.system_properties["model_dir"])
        self.eager = as_module(self.model)
        self.model = load_exported(self.folder) or self.eager
        self.contract = Contract.from_config(context.model_yaml_config, self.mapping)
        self._check_fit()
        golden.check(golden.read(self.folder), self.outputs, self.contract.labels)
        self.description = self._describe()

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """Answer each request of a batch by its label, or by a 4xx status and the reason."""
        read = [self._read(index, row, context) for index, row in enumerate(data)]
        pixels = [one for one in read if isinstance(one, np.ndarray)]
        labels = iter(self.postprocess(self.inference(self.preprocess(pixels))) if pixels else ())
        return [next(labels) if isinstance(one, np.ndarray) else one for one in read]

    def outputs(self, bodies: list[bytes]) -> torch.Tensor:
        """Return the model's outputs (N, labels) for picture files. Raises BadImage."""
        batch = self.preprocess([self.read_pixels(body) for body in bodies])
        return torch.as_tensor(self.inference(batch)).cpu()

    def read_pixels(self, body: bytes) -> np.ndarray:
        """Return a picture file's pixels as the contract wants them. Raises BadImage."""
        return read_pixels(body, self.contract)

    def preprocess(self, data: list[np.ndarray]) -> torch.Tensor:
        """Scale uint8 pictures (H, W, C) into a float32 batch (N, C, H, W) by the contract."""
        return torch.from_numpy(self.contract.normalize(np.stack(data)))

    def postprocess(self, data: torch.Tensor) -> list[str]:
        """Return the label of the largest value in each row of outputs (N, labels)."""
        return [self.contract.labels[index] for index in data.argmax(dim=1).tolist()]

    def describe_handle(self) -> dict[str, Any]:
        """Tell which archive this is: what GET /models/NAME?customized=true answers."""
        return self.description

    def _check_fit(self) -> None:
        """Raise BadContract where the model takes no picture, or has not as many outputs as labels."""
        channels, height, width = self.contract.shape
        try:
            outputs = self.inference(self.preprocess([np.zeros((height, width, channels), np.uint8)]))
        except Exception as error:
            raise BadContract(
                f"the model does not take pictures in {self.contract.color} of {height} x {width} ({error}); "
                "correct input.color and input.size"
            ) from error
        if outputs.shape != (1, len(self.contract.labels)):
            raise BadContract(
                f"the model answers one picture with {tuple(outputs.shape)} values, but "
                f"model-config.yaml has {len(self.contract.labels)} labels"
            )

    def _describe(self) -> dict[str, Any]:
        provenance = self.folder / canonical.PROVENANCE
        return {
            "archive_sha256": canonical.digest_of_unpacked(self.folder),
            "provenance": json.loads(provenance.read_text()) if provenance.exists() else None,
            "contract": {key: self.model_yaml_config[key] for key in ("input", "labels")},
        }

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: str) -> torch.nn.Module:
        if not model_pt_path.endswith(SAFETENSORS):
            loaded: torch.nn.Module = super()._load_pickled_model(model_dir, model_file, model_pt_path)
            return loaded
        return load_safetensors(super()._load_pickled_model(model_dir, model_file, None), model_pt_path)

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
            return self.read_pixels(picture_of(row, headers.get("content-type")))
        except BadImage as refusal:
            context.set_response_status(400, "Bad Request", index)
            return str(refusal)
        except Exception:  # a fault of ours must not cost the others of the batch their answers
            logger.exception("request %d of the batch failed", index)
            context.set_response_status(500, "Internal Server Error", index)
            return "this picture met a fault of the server; its log has the details"


def _http_headers(mixed: dict[str, Any]) -> dict[str, str]:
    """Return the HTTP headers by lower-case name: TorchServe mixes them with the types of form fields."""
    return {name.lower(): value for name, value in mixed.items() if isinstance(value, str)}
