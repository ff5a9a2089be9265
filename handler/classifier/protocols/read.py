"""Turn a request, in any of its forms, into a question."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ..answers import Model, all_as_json, labels_as_text, one_as_json
from ..contract import Contract
from ..errors import BadImage, Reason
from ..messages import AnswerForm, Question, Request, Response, Seen
from . import kserve_v2 as open_inference
from .body import MOST_IMAGES, files_of, is_json, shown
from .json_body import bad_json, read_json
from .kserve_v1 import EXAMPLE, images_of, parameters_of
from .options import FIELDS, answer_form

# Values in a request's JSON besides a tensor's: names, parameters.
MARGIN = 10_000


def question_of(request: Request, contract: Contract, model: Model) -> Question:
    """Return a request's question, to be answered in the form of its protocol. Raises BadRequest."""
    files, options = files_of(request, FIELDS)
    headers = request.headers
    [body, *more] = files.values()
    if not more and is_json(body):
        return _of_json(body, options, headers, contract, model)
    form = answer_form(headers, options, contract.labels)
    return Question(
        partial(_answer_images, form, contract.labels, model), list(files.values()), _names(files)
    )


def image_to_explain(request: Request, contract: Contract) -> tuple[bytes, AnswerForm]:
    """Return the one image of a request, and the form of its explanation. Raises BadRequest."""
    files, options = files_of(request, FIELDS)
    headers = request.headers
    images = list(files.values())
    if len(images) == 1 and is_json(images[0]):
        sent = read_json(images[0], MARGIN)
        if open_inference.INPUTS in sent:
            raise bad_json("tensors cannot be explained", EXAMPLE)
        images, options = images_of(sent), {**options, **parameters_of(sent)}
    if len(images) > 1:
        message = f"there are {len(images)} images"
        raise BadImage(message, "send only the one to explain", Reason.SEVERAL_FIELDS)
    return images[0], answer_form(headers, options, contract.labels)


def _of_json(
    body: bytes, options: Mapping[str, str], headers: Mapping[str, str], contract: Contract, model: Model
) -> Question:
    channels, height, width = contract.shape
    text, behind = open_inference.json_part(body, headers)
    sent = read_json(text, MOST_IMAGES * channels * height * width + MARGIN)
    if open_inference.INPUTS in sent:
        inference = open_inference.read(sent, behind, contract.shape)
        names = [f"element {number}" for number in range(len(inference.images))]
        tell = partial(_answer_tensors, inference, contract.labels, model)
        return Question(tell, inference.images, names, inference.tensors)
    images = images_of(sent)
    form = answer_form(headers, {**options, **parameters_of(sent)}, contract.labels)
    names = [f"instance {number}" for number in range(len(images))]
    return Question(partial(_answer_instances, form, contract.labels), images, names)


def _names(files: Mapping[str, bytes]) -> list[str]:
    """Return the name of each of several files for errors; one needs no name."""
    return [f"the field {shown(name)}" for name in files] if len(files) > 1 else []


def _answer_images(form: AnswerForm, labels: tuple[str, ...], model: Model, seen: Seen) -> Response:
    """Answer in text unless JSON was asked for: one label, or several in order."""
    if not form.json:
        return labels_as_text(seen, labels)
    if len(seen.rows) == 1:
        return one_as_json(seen, labels, form, model)
    return all_as_json(seen, labels, form, model)


def _answer_instances(form: AnswerForm, labels: tuple[str, ...], seen: Seen) -> Response:
    """Answer JSON in JSON unless text was asked for."""
    if form.json is False:
        return labels_as_text(seen, labels)
    return all_as_json(seen, labels, form, None)


def _answer_tensors(
    inference: open_inference.Inference, labels: tuple[str, ...], model: Model, seen: Seen
) -> Response:
    return open_inference.answer(inference, seen, labels, model)
