"""TorchServe's way in: the only module that knows TorchServe's handlers."""

from __future__ import annotations

import json
import logging
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import load_label_mapping

import canonical
import golden
import probe
from batch_record import BatchRecord
from contract import LABEL_FILE, BadContract, Contract
from front_end import speed_up
from images import BadImage, read_pixels
from observer import Observer
from onnx_model import SUFFIX, load_onnx
from request_body import http_headers, picture_of
from runtimes import Model, load_exported

logger = logging.getLogger(__name__)

TEXT = "text/plain; charset=utf-8"
DIGEST = "archive_sha256"
# TorchServe marks what it asks for besides a prediction by these headers of its own.
DESCRIBE, EXPLAIN, ASKED = "describe", "explain", "True"


class ConvNetHandler(BaseHandler):
    """Image bytes in, one label out per request; a bad picture fails its own request alone."""

    model: Model  # what answers
    device: Any   # a torch.device, once torch was needed
    contract: Contract
    folder: Path
    description: dict[str, Any]
    observer: Observer

    def initialize(self, context: Any) -> None:
        """Load the model as the manifest says and the contract from model-config.yaml.

        Raises BadContract where the model does not fit the contract, GoldenMismatch where it does not
        answer as it did when the archive was built, and Altered where a member is not the one that was
        recorded then: such a worker does not become READY.
        """
        self.context = context
        self.manifest = context.manifest
        self.folder = Path(context.system_properties["model_dir"])
        self.mapping = load_label_mapping(str(self.folder / LABEL_FILE))
        self.contract = Contract.from_config(context.model_yaml_config, self.mapping)
        self.model = self._load()
        self._check_fit()
        golden.check(golden.read(self.folder), self.outputs, self.contract.labels)
        self.description = self._describe(canonical.check_unpacked(self.folder))
        speed_up(context.metrics)
        self.observer = Observer(context, self.contract.labels, self.description[DIGEST])
        self.initialized = True

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """Answer each request of a batch by its label, or by a 4xx status and the reason."""
        with self.observer.watch(len(data), context) as batch:
            read = [self._read(index, row, context, batch) for index, row in enumerate(data)]
            pixels = [one for one in read if isinstance(one, np.ndarray)]
            labels = iter(self._labels(self.preprocess(pixels), batch) if pixels else ())
            return [next(labels) if isinstance(one, np.ndarray) else one for one in read]

    def outputs(self, bodies: list[bytes]) -> np.ndarray:
        """Return the model's outputs, float32 (N, labels), for picture files. Raises BadImage."""
        return self.inference(self.preprocess([self.read_pixels(body) for body in bodies]))

    def read_pixels(self, body: bytes) -> np.ndarray:
        """Return a picture file's pixels as the contract wants them. Raises BadImage."""
        return read_pixels(body, self.contract)

    def preprocess(self, data: list[np.ndarray]) -> np.ndarray:
        """Scale uint8 pictures (H, W, C) into a float32 batch (N, C, H, W) by the contract."""
        return self.contract.normalize(np.stack(data))

    def inference(self, data: np.ndarray) -> np.ndarray:
        """Return the model's outputs, float32 (N, labels), for a float32 batch (N, C, H, W)."""
        return self.model(data)

    def postprocess(self, data: np.ndarray) -> list[str]:
        """Return the label of the largest value in each row of outputs (N, labels)."""
        return [self.contract.labels[index] for index in data.argmax(axis=1).tolist()]

    def describe_handle(self) -> dict[str, Any]:
        """Tell which archive this is: what GET /models/NAME?customized=true answers."""
        return self.description

    @cached_property
    def eager(self) -> Any:
        """The class with its weights, or whatever else the manifest names: the reference.

        TorchServe's own code loads it when it is first asked for; what answers otherwise needs no torch.
        """
        loaded = type(self)()
        BaseHandler.initialize(loaded, self.context)
        self.device = loaded.device
        return loaded.model

    def check_eager(self) -> None:
        """Hold the reference, too, to the golden answers. Raises GoldenMismatch."""
        if not callable(self.eager):  # a session of ONNX Runtime's: it answers itself, and is checked
            return
        from torch_model import as_function

        model = as_function(self.eager, self.device)
        golden.check(
            golden.read(self.folder),
            lambda bodies: model(self.preprocess([self.read_pixels(body) for body in bodies])),
            self.contract.labels,
        )

    def _labels(self, scaled: np.ndarray, batch: BatchRecord) -> list[str]:
        began = perf_counter()
        batch.outputs = self.inference(scaled)
        batch.inference = perf_counter() - began
        return self.postprocess(batch.outputs)

    def _load(self) -> Model:
        exported = load_exported(self.folder)
        if exported is not None:
            return exported
        named = self.manifest["model"]
        if not named.get("modelFile") and named.get("serializedFile", "").endswith(SUFFIX):
            return load_onnx(self.folder / named["serializedFile"])
        # torch is imported by a worker that needs it, and by no other.
        from torch_model import as_function

        return as_function(self.eager, self.device)

    def _check_fit(self) -> None:
        """Raise BadContract where the model takes no picture, or has not as many outputs as labels."""
        channels, height, width = self.contract.shape
        try:
            outputs = self.inference(self.preprocess([np.zeros((height, width, channels), np.uint8)]))
        except Exception as error:
            first = str(error).partition("\n")[0]
            raise BadContract(
                f"the model does not take pictures in {self.contract.color} of {height} x {width} ({first}); "
                "correct input.color and input.size"
            ) from error
        if outputs.shape != (1, len(self.contract.labels)):
            raise BadContract(
                f"the model answers one picture with {tuple(outputs.shape)} values, but "
                f"model-config.yaml has {len(self.contract.labels)} labels"
            )

    def _describe(self, digest: str | None) -> dict[str, Any]:
        provenance = self.folder / canonical.PROVENANCE
        config = self.context.model_yaml_config
        return {
            DIGEST: digest,
            "provenance": json.loads(provenance.read_text()) if provenance.exists() else None,
            "contract": {key: config[key] for key in ("input", "labels")},
        }

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: str) -> Any:
        from torch_model import SAFETENSORS, load_safetensors

        if not model_pt_path.endswith(SAFETENSORS):
            return super()._load_pickled_model(model_dir, model_file, model_pt_path)
        return load_safetensors(super()._load_pickled_model(model_dir, model_file, None), model_pt_path)

    def _read(self, index: int, row: dict[str, Any], context: Any, batch: BatchRecord) -> np.ndarray | Any:
        """Return a request's pixels; or its finished answer, with the status set."""
        headers = http_headers(context.get_all_request_header(index))
        if headers.get(DESCRIBE) == ASKED:
            # As TorchServe writes it; of anything but text it asks torch first whether it is a tensor.
            return json.dumps(self.describe_handle(), indent=2)
        context.set_response_content_type(index, TEXT)
        if headers.get(EXPLAIN) == ASKED:
            _refuse(context, batch, index, HTTPStatus.NOT_IMPLEMENTED)
            return "this model has no explanations; send the picture to /predictions instead"
        began = perf_counter()
        try:
            pixels = self.read_pixels(picture_of(row, headers.get("content-type")))
        except BadImage as refusal:
            _refuse(context, batch, index, HTTPStatus.BAD_REQUEST, refusal.reason)
            return str(refusal)
        except Exception:  # a fault of ours must not cost the others of the batch their answers
            logger.exception("request %d of the batch failed", index)
            _refuse(context, batch, index, HTTPStatus.INTERNAL_SERVER_ERROR)
            return "this picture met a fault of the server; its log has the details"
        batch.read(index, perf_counter() - began, is_probe=probe.HEADER in headers)
        return pixels


def _refuse(context: Any, batch: BatchRecord, index: int, status: HTTPStatus, reason: str = "") -> None:
    context.set_response_status(int(status), status.phrase, index)
    batch.refused.append((index, int(status), reason))
