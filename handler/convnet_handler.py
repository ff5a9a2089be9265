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
from answer_form import ACCEPT, ANYTHING, QUERY
from answers import TEXT, checked, of_fault
from batch_record import BatchRecord
from contract import LABEL_FILE, OUTPUTS, BadContract, Contract
from explanation import check_offered, explained
from fixed_batch import FixedBatch
from front_end import speed_up
from images import check_together, read_pixels
from observer import Observer
from onnx_model import SUFFIX, load_onnx
from open_inference import speaks_v2
from question import Posed, Question, Seen
from refusal import JSON, Refusal, error, error_in_v2
from request_body import MOST_PICTURES, http_headers, is_json, picture_of
from request_form import picture_to_explain, question_of
from runtimes import Model, load_exported

logger = logging.getLogger(__name__)

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
    named: dict[str, Any]  # the archive, as answers in JSON name it
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
        self.model = self._fitted(self._load())
        golden.check(golden.read(self.folder), self.outputs, self.contract.labels)
        self.description = self._describe(canonical.check_unpacked(self.folder))
        self.named = {
            "name": context.model_name,
            "version": self.manifest["model"]["modelVersion"],
            "sha256": self.description[DIGEST],
        }
        speed_up(context.metrics)
        self.observer = Observer(context, self.contract, self.description[DIGEST])
        self.initialized = True

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """Answer each request of a batch by its label, by what else it asked for, or by an error."""
        with self.observer.watch(len(data), context) as batch:
            read = [self._read(index, row, context, batch) for index, row in enumerate(data)]
            pixels = [one for one in read if isinstance(one, np.ndarray)]
            if len(pixels) < len(batch.answered):
                return self._answer_all(data, read, context, batch)
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
        import torch

        loaded = type(self)()
        with torch.inference_mode(mode=False):  # whoever asks for it first: explanations take its gradients
            BaseHandler.initialize(loaded, self.context)
        self.device = loaded.device
        return loaded.model

    def check_eager(self) -> None:
        """Hold the reference, too, to the golden answers. Raises GoldenMismatch."""
        if not callable(self.eager):  # a session of ONNX Runtime's: it answers itself, and is checked
            return
        from torch_model import as_function

        model = self._fitted(as_function(self.eager, self.device))
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
        named = self.manifest["model"]
        if not named.get("modelFile") and named.get("serializedFile", "").endswith(SUFFIX):
            return load_onnx(self.folder / named["serializedFile"], self.contract.output)
        if self.contract.output is not None:
            raise BadContract(
                f"output is {self.contract.output!r}, which names an output of an ONNX file, and this model "
                "is none; leave it out"
            )
        exported = load_exported(self.folder)
        if exported is not None:
            return exported
        # torch is imported by a worker that needs it, and by no other.
        from torch_model import as_function

        return as_function(self.eager, self.device)

    def _fitted(self, model: Model) -> Model:
        """Return a model for batches of any size: one that takes a single picture is asked for each in turn.

        Raises BadContract where the model takes no picture, or has not as many outputs as labels.
        """
        channels, height, width = self.contract.shape
        blank = self.preprocess([np.zeros((height, width, channels), np.uint8)])
        try:
            outputs = model(blank)
        except BadContract:
            raise
        except Exception as error:
            first = str(error).partition("\n")[0]
            raise BadContract(
                f"the model does not take one picture in {self.contract.color} of {height} x {width} "
                f"({first}); correct input.color and input.size, or export it for batches of any size"
            ) from error
        labels = len(self.contract.labels)
        if outputs.shape != (1, labels):
            raise BadContract(
                f"the model answers one picture with {tuple(outputs.shape)} values, but "
                f"model-config.yaml has {labels} labels; return (N, labels), a value per label"
            )
        if _takes(model, np.concatenate([blank, blank]), labels):
            return model
        logger.info("the model takes one picture at a time: a batch is answered picture by picture")
        return FixedBatch(model, 1)

    def _describe(self, digest: str | None) -> dict[str, Any]:
        provenance = self.folder / canonical.PROVENANCE
        config = self.context.model_yaml_config
        return {
            DIGEST: digest,
            "provenance": json.loads(provenance.read_text()) if provenance.exists() else None,
            "contract": {key: config[key] for key in ("input", "labels", OUTPUTS) if key in config},
        }

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: str) -> Any:
        from torch_model import SAFETENSORS, load_safetensors

        if not model_pt_path.endswith(SAFETENSORS):
            return super()._load_pickled_model(model_dir, model_file, model_pt_path)
        return load_safetensors(super()._load_pickled_model(model_dir, model_file, None), model_pt_path)

    def _read(self, index: int, row: dict[str, Any], context: Any, batch: BatchRecord) -> np.ndarray | Any:
        """Return a request's pixels, where its label is all that is wanted; or what it asks; or its answer.

        Of a finished answer, the status is set.
        """
        headers = http_headers(context.get_all_request_header(index))
        if headers.get(DESCRIBE) == ASKED:
            # As TorchServe writes it; of anything but text it asks torch first whether it is a tensor.
            return json.dumps(self.describe_handle(), indent=2)
        context.set_response_content_type(index, TEXT)
        began = perf_counter()
        try:
            if headers.get(EXPLAIN) == ASKED:
                return self._pose(index, began, self._explanation(row, headers), batch)
            # Nearly every request is a picture and says no more, and costs no more than these questions.
            if len(row) == 1 and headers.get(ACCEPT) in ANYTHING and QUERY not in headers:
                body = picture_of(row, headers.get("content-type"))
                if not is_json(body):
                    pixels = self.read_pixels(body)
                    batch.read(index, perf_counter() - began, is_probe=probe.HEADER in headers)
                    return pixels
            return self._pose(index, began, question_of(row, headers, self.contract, self.named), batch)
        except Refusal as refusal:
            return _refused(context, batch, index, row, refusal)
        except Exception:  # a fault of ours must not cost the others of the batch their answers
            logger.exception("request %d of the batch failed", index)
            return _faulty(context, batch, index, row)

    def _pose(self, index: int, began: float, question: Question, batch: BatchRecord) -> Posed:
        """Read a question's pictures. Raises Refusal."""
        if question.tensors is None:
            if len(question.pictures) > 1:
                check_together(question.pictures)
            rows = [self._one_of(question, place) for place in range(len(question.pictures))]
        else:
            rows = list(question.tensors)
        batch.read_several(index, perf_counter() - began, len(rows))
        return Posed(question, rows, index)

    def _one_of(self, question: Question, place: int) -> np.ndarray:
        try:
            return self.read_pixels(question.pictures[place])
        except Refusal as refusal:
            raise refusal.of(question.names[place]) if question.names else refusal from refusal

    def _answer_all(
        self, data: list[dict[str, Any]], read: list[Any], context: Any, batch: BatchRecord
    ) -> list[Any]:
        """Answer a batch in which somebody asks for more than the label of one picture."""
        rows: list[np.ndarray] = []
        for one in read:
            rows += [one] if isinstance(one, np.ndarray) else one.rows if isinstance(one, Posed) else []
        began = perf_counter()
        # A batch may be 16 requests of many pictures: scaled all at once they would take gigabytes.
        parts = [rows[first : first + MOST_PICTURES] for first in range(0, len(rows), MOST_PICTURES)]
        batch.outputs = np.concatenate([self.inference(self._scaled(part)) for part in parts])
        batch.inference = perf_counter() - began
        answers, outputs = [], batch.outputs
        for one in read:
            count = len(one.rows) if isinstance(one, Posed) else int(isinstance(one, np.ndarray))
            own, outputs = outputs[:count], outputs[count:]
            if isinstance(one, Posed):
                answers.append(self._tell(one, own, data[one.index], context, batch))
            else:
                answers.append(self.postprocess(own)[0] if count else one)
        return answers

    def _scaled(self, rows: list[np.ndarray]) -> np.ndarray:
        """Return rows, some of which came scaled, as a float32 batch (N, C, H, W)."""
        if all(row.dtype == np.uint8 for row in rows):
            return self.preprocess(rows)
        return np.stack([self.contract.normalize(row) if row.dtype == np.uint8 else row for row in rows])

    def _tell(
        self, posed: Posed, outputs: np.ndarray, row: dict[str, Any], context: Any, batch: BatchRecord
    ) -> str | bytes:
        """Return a question's answer, or its error with the status set."""
        try:
            reply = checked(posed.question.tell(Seen(posed.rows, outputs, self.contract.outputs)))
        except Refusal as refusal:
            return _refused(context, batch, posed.index, row, refusal)
        except Exception:  # as where a picture is read
            logger.exception("request %d of the batch failed", posed.index)
            return _faulty(context, batch, posed.index, row)
        context.set_response_content_type(posed.index, reply.content_type)
        for name, value in reply.headers:
            context.set_response_header(posed.index, name, value)
        return reply.body

    def _reference(self) -> tuple[Any, Any]:
        """Return the reference as explanations ask it, in batches, and its device."""
        model = self.eager
        if isinstance(self.model, FixedBatch) and callable(model):
            from torch_model import one_by_one

            model = one_by_one(model)
        return model, self.device

    def _explanation(self, row: dict[str, Any], headers: dict[str, str]) -> Question:
        """Return the question why a picture is answered as it is. Raises Refusal."""
        check_offered()
        picture, form = picture_to_explain(row, headers, self.contract)
        return Question(
            lambda seen: explained(seen, form, self.contract, self.named, self._reference),
            [picture],
        )


def _takes(model: Model, batch: np.ndarray, labels: int) -> bool:
    """Tell whether a model answers each picture of a batch."""
    try:
        return model(batch).shape == (len(batch), labels)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 each runtime has types of its own for a shape that it does not take
        return False


def _refused(context: Any, batch: BatchRecord, index: int, row: dict[str, Any], refusal: Refusal) -> str:
    batch.refuse(index, int(refusal.status), refusal.reason)
    return _error(context, index, row, (refusal.status, refusal.message, refusal.hint))


def _faulty(context: Any, batch: BatchRecord, index: int, row: dict[str, Any]) -> str:
    status, message, hint = of_fault()
    batch.refuse(index, int(status), "")
    return _error(context, index, row, (status, message, hint))


def _error(context: Any, index: int, row: dict[str, Any], told: tuple[HTTPStatus, str, str]) -> str:
    status, message, hint = told
    context.set_response_status(int(status), status.phrase, index)
    context.set_response_content_type(index, JSON)
    if speaks_v2(row, http_headers(context.get_all_request_header(index))):
        return error_in_v2(message, hint)
    return error(status, message, hint)
