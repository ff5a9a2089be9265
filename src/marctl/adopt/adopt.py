"""Make a model folder for `make archive` from a .mar that torch-model-archiver built.

The class and the weights are copied, and the handler's transforms become the contract's numbers. No code of
the old archive is run: its sources are parsed, and its weights are loaded with weights_only.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import classifier
from classifier.canonical import LABEL_FILE, MANIFEST
from classifier.contract import OUTPUTS
from marctl.adopt import adoption
from marctl.adopt.adoption import CLASS, HANDLER, LABELS, SETTINGS, WEIGHTS, Found, Question
from marctl.adopt.archiver_mar import ArchiverMar
from marctl.adopt.source_values import plain
from marctl.adopt.weights_file import needs_torch
from marctl.archive.mar import is_name
from marctl.build.model_folder import CONFIG, GOLDEN
from marctl.errors import UserError
from marctl.extras import need_torch
from marctl.printable import printable
from marctl.sandbox import sandbox

APART = Path(__file__).with_name("apart.py")
# The folders of this project's packages.
MODULES = (Path(classifier.__file__).parents[1], Path(__file__).parents[2])
# Modules in every archive or its environment: the class file must not have one of these names.
OTHERS = {
    "classifier", "convnet_handler", "torch", "torchvision", "numpy", "PIL", "ts", "yaml", "onnxruntime",
    "safetensors",
}  # fmt: skip
# The manifest's key of each file.
KEYS = {CLASS: "modelFile", SETTINGS: "configFile", WEIGHTS: "serializedFile"}
REMEDIES = {
    "color": "grayscale or rgb",
    "size": "[height, width] of the model's input, in pixels",
    "mean": "a list, one number per channel",
    "std": "a list, one number per channel",
}


@dataclass(kw_only=True)
class Adopted(Found):
    """What was found in an archive, with the name, version and origin of the new model."""

    name: str
    version: str
    origin: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the archive, and the model folder to write."""
    parser.add_argument("mar", type=Path, help="a .mar of torch-model-archiver")
    parser.add_argument(
        "folder", type=Path, help="the model folder to write; existing files are not overwritten"
    )
    parser.add_argument("--name", help="another name for the model")


def run(arguments: argparse.Namespace) -> int:
    """Adopt one archive; print what was written, what could not be determined, and the next command."""
    written, adopted = adopt(arguments.mar, arguments.folder, arguments.name)
    report(arguments.folder, written, adopted)
    return 0


def adopt(mar: Path, folder: Path, name: str | None = None) -> tuple[dict[str, str], Adopted]:
    """Write a model folder; return a description of each new file by name, and what was found.

    Raises UserError, also if a file exists already or cannot be written.
    """
    with ArchiverMar(mar) as archive:
        chosen, (handler, texts) = _name(archive, name), _texts(archive)
        names = {what: archive.named(key) for what, key in KEYS.items()}
        question = Question(handler, names, archive.names)
        is_new = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".adopt-", dir=folder) as scratch:
                for what, text in texts.items():
                    (Path(scratch) / what).write_bytes(text)
                if (weights := names[WEIGHTS]) is not None:
                    archive.extract(weights, Path(scratch) / WEIGHTS)
                    if needs_torch(Path(scratch) / WEIGHTS, weights):
                        need_torch("torch")  # reads them, in the sandbox
                found = _found(archive, chosen, question, Path(scratch))
                files = dict(_files(texts, found))
                return _write(folder, found, files, Path(scratch) / WEIGHTS), found
        except OSError as error:
            raise UserError(f"cannot write into {folder}: {error.strerror or error}") from error
        finally:
            if is_new:
                with contextlib.suppress(OSError):  # not empty: the adoption succeeded
                    folder.rmdir()


def report(folder: Path, written: Mapping[str, str], found: Adopted) -> None:
    """Print what was written, what could not be determined, and the next command."""
    print(f"wrote the model folder {folder} from {found.origin}; none of the archive's code was run")
    for name, what in written.items():
        print(f"  {folder / name}  {what}")
    for title, lines in (("check", found.remarks), ("could not be determined", found.untold)):
        if lines:
            print(f"{title}:")
        for line in lines:
            print(f"  - {line}")
    print(f"next, put a few images that the model recognises into {folder / GOLDEN}, then run:")
    print(f"  {shlex.join(['make', 'archive', f'MODEL={folder}'])}")


def _name(archive: ArchiverMar, name: str | None) -> str:
    """Return the name that the model gets. Raises UserError."""
    chosen = archive.model["modelName"] if name is None else name
    if not is_name(chosen):
        raise UserError(
            f"the model's name is {printable(repr(chosen), 100)}; choose another, of letters, digits, - _ . "
            "only, with --name"
        )
    module = Path(_class_file(chosen)).stem
    if module in sys.stdlib_module_names | OTHERS:
        raise UserError(
            f"a class file {module}.py would shadow the module of that name; choose another name with --name"
        )
    return str(chosen)


def _texts(archive: ArchiverMar) -> tuple[str, dict[str, bytes]]:
    """Return the handler's name, and the content of all files but the weights. Raises BadArchive."""
    handler = archive.model["handler"].partition(":")[0]
    texts = {
        HANDLER: archive.text(handler) or archive.text(f"{handler}.py"),
        LABELS: archive.text(LABEL_FILE),
        **{what: archive.text(archive.named(KEYS[what]) or "") for what in (CLASS, SETTINGS)},
    }
    return handler, {what: text for what, text in texts.items() if text is not None}


def _found(archive: ArchiverMar, name: str, question: Question, folder: Path) -> Adopted:
    """Examine the archive's files in the sandbox. Raises UserError if that fails."""
    size = sum(file.stat().st_size for file in folder.iterdir())
    request = json.dumps(dataclasses.asdict(question)).encode()
    try:
        told = adoption.read(sandbox.run(APART, folder, request, sandbox.to_parse(size), MODULES))
    except (sandbox.NoAnswer, ValueError) as error:
        raise UserError(
            printable(f"{archive.path} could not be examined within the limits of time and memory: {error}")
        ) from error
    own, version = archive.model["modelName"], archive.model.get("modelVersion")
    found = Adopted(
        **vars(told),
        name=name,
        version=str(version) if is_name(version) else "1.0",
        origin=printable(f"{archive.path} ({own} {version})"),
    )
    if version is not None and not is_name(version):
        found.untold.insert(0, f"VERSION: {plain(repr(version))} is not a valid version; 1.0 is used instead")
    _look_at_the_rest(archive, found, question.handler)
    return found


def _look_at_the_rest(archive: ArchiverMar, found: Adopted, handler: str) -> None:
    known = {archive.model.get(key) for key in ("modelFile", "serializedFile", "configFile")}
    known |= {handler, f"{handler}.py", LABEL_FILE, MANIFEST}
    rest = sorted(name for name in archive.names if name not in known)
    if rest:
        more = f" and {len(rest) - 5} more" if len(rest) > 5 else ""  # noqa: PLR2004 a line's worth
        found.untold.append(f"not carried over: {plain(', '.join(rest[:5]))}{more}")


def _files(texts: Mapping[str, bytes], found: Adopted) -> Iterator[tuple[str, tuple[bytes, str]]]:
    """Yield the name, the content and the description of each file except the weights."""
    if found.model is not None and CLASS in texts:
        kind = f", with {found.model.kind} as outputs" if found.model.kind else ""
        yield _class_file(found.name), (texts[CLASS], f"the class {found.model.name}{kind}")
    if found.labels is not None:
        text = json.dumps({str(number): label for number, label in enumerate(found.labels)}, indent=2)
        yield LABEL_FILE, (text.encode() + b"\n", f"{len(found.labels)} labels")
    yield CONFIG, (_config(found).encode(), "the contract")


def _write(
    folder: Path, found: Adopted, files: Mapping[str, tuple[bytes, str]], weights: Path
) -> dict[str, str]:
    """Write all files, or none if one of them exists already. Raises UserError and OSError."""
    targets = [folder / name for name in files]
    described = {name: what for name, (_, what) in files.items()}
    kept = None
    if found.ending:
        kept = folder / f"{found.name}{found.ending}"
        targets.append(kept)
        described[kept.name] = f"the weights, {found.tensors} tensors" if found.tensors else "the model"
    for target in targets:
        if target.exists() or target.is_symlink():
            raise UserError(
                f"{target} exists already and is not overwritten; name another folder, or move it away"
            )
    if (folder / GOLDEN).is_symlink() or ((folder / GOLDEN).exists() and not (folder / GOLDEN).is_dir()):
        raise UserError(f"{folder / GOLDEN} is not a folder; name another folder, or move it away")
    with contextlib.ExitStack() as undo:
        for name, (data, _) in files.items():
            with (folder / name).open("xb") as file:
                undo.callback((folder / name).unlink)
                file.write(data)
        if kept is not None:
            with kept.open("xb") as file, weights.open("rb") as source:
                undo.callback(kept.unlink)
                shutil.copyfileobj(source, file)
        (folder / GOLDEN).mkdir(exist_ok=True)
        undo.pop_all()
    return {**described, f"{GOLDEN}/": "for images whose answers you know; the build needs some"}


def _config(found: Adopted) -> str:
    """Return a model-config.yaml; uncertain values are comments, so that the build asks for them."""
    told = found.preprocessing
    lines = [*_archive_section(found), ""]
    lines += [f"# From {found.origin}: what its handler does to an image. Check it.", "input:"]
    if told.doubts:
        lines += [f"  # {doubt}" for doubt in told.doubts]
        lines.append(
            "  # So these values are not certain. Uncomment those that are right, and correct the others."
        )
        found.untold += [f"input: {doubt}" for doubt in told.doubts]
    off = "# " if told.doubts else ""
    for key in ("color", "resize", "size", "mean", "std"):
        if (value := told.input.get(key)) is not None:
            lines.append(f"  {off}{key}: {_yaml(value)}")
        elif key in REMEDIES:
            lines.append(f"  # {key}:    not in the handler: {REMEDIES[key]}")
            found.untold.append(f"input.{key}: write {REMEDIES[key]}, into {CONFIG}")
    lines += ["", *_labels_and_outputs(found), "", "# How TorchServe runs it."]
    lines += [f"{key}: {value}" for key, value in found.settings.items()]
    return "\n".join(lines) + "\n"


def _archive_section(found: Adopted) -> Iterator[str]:
    yield "archive:"
    yield f"  name: {_yaml(found.name)}"
    yield f'  version: "{found.version}"'
    if not found.has_class:
        yield '  model: ""           # the weights need none'


def _labels_and_outputs(found: Adopted) -> Iterator[str]:
    if found.is_multi_label:
        yield "# The model scores each label on its own (a sigmoid), but here an image gets one label."
        yield f"# labels: {LABEL_FILE}"
        found.untold.append(
            "labels: the model scores each label on its own (a sigmoid), but here an image gets one "
            f"label; if that is what you want, uncomment labels in {CONFIG}"
        )
        return
    if found.labels is None:
        yield "# labels:    not in the archive: a list of names, one per output, in quotes"
        found.untold.append(f"labels: list one name per output, in quotes, in {CONFIG}")
    else:
        yield f"labels: {LABEL_FILE}"
    if found.model is not None and found.model.kind is not None:
        yield f"{OUTPUTS}: {found.model.kind}"


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=sys.maxsize)
    return text.removesuffix("\n...\n").strip()


def _class_file(name: str) -> str:
    """Return the class file's name, whose stem Python can import."""
    return re.sub(r"\W", "_", name) + ".py"
