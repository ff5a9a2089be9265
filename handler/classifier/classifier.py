"""An open model folder, which answers requests and checks itself. It depends on no server."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import yaml

from . import canonical, golden
from .answers import checked
from .canonical import LABEL_FILE, MANIFEST
from .contract import OUTPUTS, BadContract, Contract, read_label_file
from .errors import JSON, BadRequest
from .explain import check_offered, explained
from .headers import HEALTH_CHECK, QUERY
from .image.decode import check_together, read_pixels
from .messages import Posed, Question, Request, Response, Seen
from .metrics.batch_record import BatchRecord
from .protocols.body import MOST_IMAGES, is_json, lone_file
from .protocols.errors import failed, refused
from .protocols.options import ACCEPT, ANYTHING
from .protocols.read import image_to_explain, question_of
from .runtime import ONNX_SUFFIX
from .runtime.eager import load_eager
from .runtime.exported import Model, load_exported
from .runtime.fixed_batch import FixedBatch
from .runtime.onnx import load_onnx

logger = logging.getLogger(__name__)

DIGEST = "archive_sha256"


class Classifier:
    """The model of an unpacked archive, its contract, and the path from requests to responses.

    Create one with `Classifier.open(folder)`. Several threads may use it at once.
    """

    def __init__(self, folder: Path, device: str, prefix: str) -> None:
        self.folder = folder
        self.device = device
        self._prefix = prefix
        self.manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["model"]
        self.config: dict[str, Any] = _config(folder, self.manifest)
        self.contract = Contract.from_config(self.config, read_label_file(folder / LABEL_FILE))
        self.model: Model = self._fitted(self._load())
        self.sha256: str | None = None  # of the archive, set by check(); None if it was not sealed
        self._plain = [Response(label) for label in self.contract.labels]

    @classmethod
    def open(cls, folder: Path, *, device: str = "cpu", prefix: str | None = None) -> Classifier:
        """Open an unpacked archive and check it.

        `device` is torch's name for the device on which the class runs; exported models run on the CPU. The
        modules of the model's class are in sys.modules under their names with `prefix` in front.

        Raises BadContract if the model does not fit the contract, GoldenMismatch if its answers differ from
        those of the build, and Altered if a member is not the one recorded then.
        """
        package = (__package__ or "").partition(".")[0]
        usual = "" if package == "classifier" else f"{package}_model_"
        opened = cls(folder, device, usual if prefix is None else prefix)
        opened.check()
        return opened

    def answer(self, requests: Sequence[Request], record: BatchRecord | None = None) -> list[Response]:
        """Answer each request of a batch with its label, with what else it asked for, or with an error.

        A bad request does not affect the others. `record` receives what happened.
        """
        batch = BatchRecord() if record is None else record
        read = [self._read(index, request, batch) for index, request in enumerate(requests)]
        if any(isinstance(one, Posed) for one in read):
            return self._answer_all(requests, read, batch)
        pixels = [one for one in read if isinstance(one, np.ndarray)]
        labels = iter(self._responses(pixels, batch) if pixels else ())
        return [one if isinstance(one, Response) else next(labels) for one in read]

    def check(self) -> None:
        """Check the golden answers and the members' digests. Raises GoldenMismatch and Altered."""
        golden.check(golden.read(self.folder), self.outputs, self.contract.labels)
        self.sha256 = canonical.check_unpacked(self.folder)

    def check_eager(self) -> None:
        """Check the golden answers of the reference model, too. Raises GoldenMismatch."""
        if self.eager is None:
            return
        from .runtime.torch import as_function

        model = self._fitted(as_function(self.eager, self.device))
        golden.check(
            golden.read(self.folder),
            lambda bodies: model(self.preprocess([self.read_pixels(body) for body in bodies])),
            self.contract.labels,
        )

    def outputs(self, bodies: list[bytes]) -> np.ndarray:
        """Return the model's outputs, float32 (N, labels), for image files. Raises BadImage."""
        return self.inference(self.preprocess([self.read_pixels(body) for body in bodies]))

    def read_pixels(self, body: bytes) -> np.ndarray:
        """Decode an image file to the contract's color and size, uint8 (H, W, C). Raises BadImage."""
        return read_pixels(body, self.contract)

    def preprocess(self, images: list[np.ndarray]) -> np.ndarray:
        """Normalize uint8 images (H, W, C) into a float32 batch (N, C, H, W)."""
        return self.contract.normalize(np.array(images))  # np.stack takes 10 µs longer

    def inference(self, batch: np.ndarray) -> np.ndarray:
        """Return the model's outputs, float32 (N, labels), for a float32 batch (N, C, H, W)."""
        return self.model(batch)

    def postprocess(self, outputs: np.ndarray) -> list[str]:
        """Return the label of the largest value in each row of outputs (N, labels)."""
        return [self.contract.labels[index] for index in outputs.argmax(axis=1).tolist()]

    @cached_property
    def eager(self) -> Any:
        """The class with its weights, or TorchScript: the reference for all other runtimes.

        None if the model is an ONNX file. The first access loads it and imports torch.
        """
        return load_eager(self.folder, self.manifest, self.config, self.device, self._prefix)

    @cached_property
    def description(self) -> dict[str, Any]:
        """The archive's SHA-256, provenance and contract."""
        provenance = self.folder / canonical.PROVENANCE
        return {
            DIGEST: self.sha256,
            "provenance": json.loads(provenance.read_text()) if provenance.exists() else None,
            "contract": {key: self.config[key] for key in ("input", "labels", OUTPUTS) if key in self.config},
        }

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The archive's name, version and SHA-256, as answers in JSON have them."""
        return {
            "name": self.manifest["modelName"],
            "version": self.manifest["modelVersion"],
            "sha256": self.sha256,
        }

    def _load(self) -> Model:
        weights = str(self.manifest.get("serializedFile", ""))
        if not self.manifest.get("modelFile") and weights.endswith(ONNX_SUFFIX):
            return load_onnx(self.folder / weights, self.contract.output)
        if self.contract.output is not None:
            raise BadContract(
                f"output is {self.contract.output!r}, but only ONNX files have named outputs and this model "
                "is not one; leave it out"
            )
        exported = load_exported(self.folder)
        if exported is not None:
            return exported
        # Imported here: a process that does not need torch does not load it.
        from .runtime.torch import as_function

        return as_function(self.eager, self.device)

    def _fitted(self, model: Model) -> Model:
        """Return a model for batches of any size: one that takes a single image is called for each in turn.

        Raises BadContract if the model does not accept an image, or does not return one output per label.
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
                f"the model does not accept one {self.contract.color} image of {height} x {width} pixels "
                f"({first}); correct input.color and input.size, or export it with a dynamic batch size"
            ) from error
        labels = len(self.contract.labels)
        if outputs.shape != (1, labels):
            raise BadContract(
                f"the model returns an output of shape {tuple(outputs.shape)} for one image, but "
                f"model-config.yaml has {labels} labels; return (N, labels), one value per label"
            )
        if _takes(model, np.concatenate([blank, blank]), labels):
            return model
        logger.info("the model accepts one image at a time: batches are run image by image")
        return FixedBatch(model, 1)

    def _read(self, index: int, request: Request, batch: BatchRecord) -> np.ndarray | Posed | Response:
        """Return the pixels of a request that asks only for a label; or its question; or its error."""
        began = perf_counter()
        try:
            if request.describe:
                return Response(json.dumps(self.description, indent=2), JSON)
            if request.explain:
                return self._pose(index, began, self._explanation(request), batch)
            # Most requests are just an image; for them these checks are the only overhead.
            headers = request.headers
            if headers.get(ACCEPT) in ANYTHING and QUERY not in headers:
                body = lone_file(request)
                if body is not None and not is_json(body):
                    pixels = self.read_pixels(body)
                    batch.read(index, perf_counter() - began, is_probe=HEALTH_CHECK in headers)
                    return pixels
            return self._pose(index, began, question_of(request, self.contract, self.identity), batch)
        except BadRequest as refusal:
            batch.refuse(index, int(refusal.status), refusal.reason)
            return refused(request, refusal)
        except Exception:  # noqa: BLE001 a bug here must not cost the other requests their answers
            return self._failed(index, request, batch)

    def _pose(self, index: int, began: float, question: Question, batch: BatchRecord) -> Posed:
        """Read a question's images. Raises BadRequest."""
        if question.tensors is None:
            if len(question.images) > 1:
                check_together(question.images)
            rows = [self._read_image(question, place) for place in range(len(question.images))]
        else:
            rows = list(question.tensors)
        batch.read_several(index, perf_counter() - began, len(rows))
        return Posed(question, rows, index)

    def _read_image(self, question: Question, place: int) -> np.ndarray:
        try:
            return self.read_pixels(question.images[place])
        except BadRequest as refusal:
            raise refusal.of(question.names[place]) if question.names else refusal from refusal

    def _responses(self, pixels: list[np.ndarray], batch: BatchRecord) -> list[Response]:
        scaled = self.preprocess(pixels)
        began = perf_counter()
        batch.outputs = self.inference(scaled)
        batch.inference = perf_counter() - began
        return [self._plain[index] for index in batch.outputs.argmax(axis=1).tolist()]

    def _answer_all(
        self, requests: Sequence[Request], read: list[np.ndarray | Posed | Response], batch: BatchRecord
    ) -> list[Response]:
        """Answer a batch in which some request asks for more than the label of one image."""
        rows: list[np.ndarray] = []
        for one in read:
            rows += [one] if isinstance(one, np.ndarray) else one.rows if isinstance(one, Posed) else []
        began = perf_counter()
        # A batch may be 16 requests with many images each: normalized at once, they would take gigabytes.
        parts = [rows[first : first + MOST_IMAGES] for first in range(0, len(rows), MOST_IMAGES)]
        outputs = np.concatenate([self.inference(self._scaled(part)) for part in parts])
        batch.outputs, batch.inference = outputs, perf_counter() - began
        responses: list[Response] = []
        for one in read:
            if isinstance(one, Response):
                responses.append(one)
                continue
            count = len(one.rows) if isinstance(one, Posed) else 1
            own, outputs = outputs[:count], outputs[count:]
            if isinstance(one, Posed):
                responses.append(self._respond(one, own, requests[one.index], batch))
            else:
                responses.append(self._plain[int(own.argmax())])
        return responses

    def _scaled(self, rows: list[np.ndarray]) -> np.ndarray:
        """Return rows, some of which came normalized, as a float32 batch (N, C, H, W)."""
        if all(row.dtype == np.uint8 for row in rows):
            return self.preprocess(rows)
        return np.stack([self.contract.normalize(row) if row.dtype == np.uint8 else row for row in rows])

    def _respond(self, posed: Posed, outputs: np.ndarray, request: Request, batch: BatchRecord) -> Response:
        """Return the response to a question: its answer or its error."""
        try:
            return checked(posed.question.tell(Seen(posed.rows, outputs, self.contract.outputs)))
        except BadRequest as refusal:
            batch.refuse(posed.index, int(refusal.status), refusal.reason)
            return refused(request, refusal)
        except Exception:  # noqa: BLE001 as in _read
            return self._failed(posed.index, request, batch)

    def _failed(self, index: int, request: Request, batch: BatchRecord) -> Response:
        logger.exception("request %d of the batch failed", index)
        response = failed(request)
        batch.refuse(index, int(response.status), "")
        return response

    def _explanation(self, request: Request) -> Question:
        """Return the question that asks for an explanation. Raises BadRequest."""
        check_offered()
        image, form = image_to_explain(request, self.contract)
        return Question(
            lambda seen: explained(seen, form, self.contract, self.identity, self._reference), [image]
        )

    def _reference(self) -> tuple[Any, str]:
        """Return the reference, able to take the batches that explanations need, and its device."""
        model = self.eager
        if isinstance(self.model, FixedBatch) and model is not None:
            from .runtime.torch import one_by_one

            model = one_by_one(model)
        return model, self.device


def _config(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the parsed model-config.yaml. Raises BadContract."""
    name = manifest.get("configFile")
    if name is None:
        raise BadContract("the archive has no model-config.yaml; name it: CONFIG=path/to/model-config.yaml")
    config = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise BadContract(f"{name} is not a mapping; write input, labels and outputs")
    return config


def _takes(model: Model, batch: np.ndarray, labels: int) -> bool:
    """Return whether a model accepts a batch and answers each image of it."""
    try:
        return model(batch).shape == (len(batch), labels)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 each runtime raises its own types for a shape that it rejects
        return False
