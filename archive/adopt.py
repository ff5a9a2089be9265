"""Make a model folder for `make archive` from a .mar that torch-model-archiver built.

Class and weights are taken over, and the handler's transforms become the contract's numbers. Nothing of
the old archive is run: its sources are read, its weights are loaded as weights alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import contract
from archiver_mar import ArchiverMar, is_name
from class_source import SIGMOID, ModelClass, class_of
from contract import LABEL_FILE, OUTPUTS, SERVER_KEYS
from handler_source import Preprocessing, preprocessing_of
from mar import BadArchive
from source_values import plain
from weights_file import BadWeights, Weights, weights_of

CONFIG, GOLDEN = "model-config.yaml", "golden"
# What an archive holds besides the class, or finds in its environment: its class file has another name.
MODULES = (Path(contract.__file__).parent, Path(__file__).parent)
OTHERS = {"torch", "torchvision", "numpy", "PIL", "ts", "yaml", "onnxruntime", "safetensors"}
# How TorchServe runs a model whose archive does not say it: one worker, which takes what waits at once.
SERVER = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 4, "maxBatchDelay": 1}
# Of what the old settings say, what means the same here: whole numbers from 1 on.
CARRIED = (
    "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout",
    "maxRetryTimeoutInSec", "clientTimeoutInMills", "jobQueueSize",
)  # fmt: skip
MOST_SETTING = 2**31 - 1
REMEDIES = {
    "color": "grayscale, or rgb",
    "size": "[height, width] of the model's input, in pixels",
    "mean": "a list, one number a channel",
    "std": "a list, one number a channel",
}


class NotAdopted(ValueError):
    """A folder that cannot be made; the text says why, and what to do."""


@dataclass
class Adopted:
    """What was found in an archive, and a sentence for each thing that was not."""

    name: str
    version: str
    origin: str
    preprocessing: Preprocessing
    model: ModelClass | None = None
    weights: Weights | None = None
    labels: list[str] | None = None
    settings: dict[str, int] = field(default_factory=dict)
    untold: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def is_multi_label(self) -> bool:
        """Whether each label is judged by itself, by the class or by the handler."""
        return self.preprocessing.has_sigmoid or (self.model is not None and self.model.kind == SIGMOID)


def main() -> int:
    """Adopt one archive; print what was written, what could not be told, and the next command."""
    arguments = _arguments()
    try:
        written, adopted = adopt(arguments.mar, arguments.folder, arguments.name)
    except (BadArchive, NotAdopted) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report(arguments.folder, written, adopted)
    return 0


def adopt(mar: Path, folder: Path, name: str | None = None) -> tuple[dict[str, str], Adopted]:
    """Write a model folder; return what each new file is, by its name, and what was found.

    Raises BadArchive, and NotAdopted where a file of the folder is there already, or cannot be written.
    """
    with ArchiverMar(mar) as archive:
        found = _found(archive, name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".adopt-", dir=folder) as scratch:
                weights = _look_at_weights(archive, found, Path(scratch))
                files = dict(_files(archive, found))
                return _write(folder, found, files, weights), found
        except OSError as error:
            raise NotAdopted(f"cannot write into {folder}: {error.strerror or error}") from error


def report(folder: Path, written: Mapping[str, str], found: Adopted) -> None:
    """Print what was written, what could not be told, and the next command."""
    print(f"{folder} is a model folder now, from {found.origin}; nothing of the archive was run")
    for name, what in written.items():
        print(f"  {folder / name}  {what}")
    for title, lines in (("look at", found.remarks), ("could not be told", found.untold)):
        if lines:
            print(f"{title}:")
        for line in lines:
            print(f"  - {line}")
    print(f"next, put a handful of images that the model knows into {folder / GOLDEN}, and then:")
    print(f"  {shlex.join(_command(folder, found))}")


def _command(folder: Path, found: Adopted) -> list[str]:
    weights = found.weights or Weights(".pth", {})
    return [
        "make",
        "archive",
        f"NAME={found.name}",
        f"VERSION={found.version}",
        f"MODEL={folder / _class_file(found.name) if weights.has_class else ''}",
        f"WEIGHTS={folder / found.name}{weights.ending}",
        f"CONFIG={folder / CONFIG}",
        *([] if found.labels is None else [f"LABELS={folder / LABEL_FILE}"]),
        f"GOLDEN={folder / GOLDEN}",
    ]


def _found(archive: ArchiverMar, name: str | None) -> Adopted:
    """Return what the archive holds but for its weights. Raises BadArchive and NotAdopted."""
    own, version = archive.model["modelName"], archive.model.get("modelVersion")
    chosen = own if name is None else name
    if not is_name(chosen):
        raise NotAdopted(
            f"the model's name is {plain(repr(chosen))}; give it one of letters, digits, - _ . by --name"
        )
    module = Path(_class_file(chosen)).stem
    if (
        module in sys.stdlib_module_names | OTHERS
        or any((folder / f"{module}.py").exists() for folder in MODULES)
    ):
        raise NotAdopted(
            f"a class file {module}.py would stand before a module of that name; say another --name"
        )
    handler = archive.model["handler"].partition(":")[0]
    source = archive.text(handler) or archive.text(f"{handler}.py")
    found = Adopted(
        chosen,
        str(version) if is_name(version) else "1.0",
        plain(f"{archive.path} ({own} {version})"),
        preprocessing_of(handler, source),
    )
    if version is not None and not is_name(version):
        found.untold.append(f"VERSION: {plain(repr(version))} is none here; 1.0 stands in its place")
    found.remarks += found.preprocessing.remarks
    _look_at_class(archive, found)
    _look_at_labels(archive, found)
    _look_at_settings(archive, found)
    _look_at_the_rest(archive, found, handler)
    return found


def _look_at_class(archive: ArchiverMar, found: Adopted) -> None:
    if (name := archive.named("modelFile")) is not None:
        found.model = class_of(archive.text(name) or b"", name, archive.names)
        found.untold += found.model.faults


def _look_at_weights(archive: ArchiverMar, found: Adopted, scratch: Path) -> Path | None:
    """Unpack the weights and look at them; return the file, None where they cannot be taken over."""
    name = archive.named("serializedFile")
    if name is None:
        found.untold.append("WEIGHTS: the archive names no weights")
        return None
    file = scratch / "weights"
    archive.extract(name, file)
    try:
        found.weights = weights_of(file, plain(name))
    except BadWeights as error:
        found.untold.append(f"WEIGHTS: {error}")
        return None
    if found.weights.has_class and found.model is None:
        found.untold.append(
            f"MODEL: the archive has no class file, and {plain(name)} needs one: the handler makes the "
            "model itself. Write the class, alone, into the file that MODEL names"
        )
    _check_channels(found, found.weights)
    if LABEL_FILE not in archive.names and found.weights.labels is not None:
        count, tensor = found.weights.labels
        found.labels = [str(number) for number in range(count)]
        found.remarks.append(
            f"the archive has no {LABEL_FILE}: the labels are the numbers 0 to {count - 1}, as many as "
            f"{plain(tensor)} has rows"
        )
    return file


def _check_channels(found: Adopted, weights: Weights) -> None:
    """Hold the colour against the first convolution, or take it from there."""
    into = found.preprocessing.input
    color = {1: "grayscale", 3: "rgb"}.get(weights.channels or 0)
    if color is not None and into.setdefault("color", color) != color:
        found.preprocessing.doubts.append(
            f"the first convolution takes {weights.channels} channels, and the "
            f"transforms make images in {into['color']}"
        )
    mean = into.get("mean")
    if into.get("color") == "rgb" and mean is not None and len(mean) == 1:
        into["mean"], into["std"] = mean * 3, into["std"] * 3


def _look_at_labels(archive: ArchiverMar, found: Adopted) -> None:
    text = archive.text(LABEL_FILE)
    if text is None:
        return
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if isinstance(told, dict) and isinstance(told.get("object_type_names"), list):
        told = dict(enumerate(told["object_type_names"]))
    if not isinstance(told, dict):
        found.untold.append(f"labels: {LABEL_FILE} is no JSON object of numbers and names")
        return
    # As TorchServe reads it: of a list, such as ImageNet's, the last.
    names = {str(key): one[-1] if isinstance(one, list) and one else one for key, one in told.items()}
    labels = [names.get(str(number)) for number in range(len(names))]
    if not labels or not all(isinstance(label, str) for label in labels):
        found.untold.append(f"labels: {LABEL_FILE} has not a text for each number from 0 to {len(names) - 1}")
        return
    found.labels = [str(label) for label in labels]


def _look_at_settings(archive: ArchiverMar, found: Adopted) -> None:
    """Take from the old model-config.yaml how TorchServe runs the model."""
    name = archive.named("configFile")
    try:
        told = yaml.safe_load(archive.text(name) or b"") if name else {}
    except (yaml.YAMLError, RecursionError, ValueError):
        told = None
    if not isinstance(told, dict):
        found.untold.append(f"the settings of {plain(str(name))} are no YAML that can be read")
        told = {}
    for key, value in told.items():
        if key in CARRIED and type(value) is int and 0 < value <= MOST_SETTING:
            found.settings[key] = value
        elif key == "maxBatchDelay" and value == 0:
            found.remarks.append(
                "maxBatchDelay 0 counts as unset for TorchServe, which then waits 100 ms; here it is 1"
            )
        else:
            what = "a setting of TorchServe's" if key in SERVER_KEYS else "of no meaning here"
            found.untold.append(
                f"{plain(str(key), 40)} in the old {plain(str(name))} is {what}, and not carried over"
            )
    # With one of the two missing TorchServe starts a worker for each CPU.
    if {"minWorkers", "maxWorkers"} & found.settings.keys():
        most = found.settings.get("maxWorkers", found.settings.get("minWorkers", 1))
        found.settings["maxWorkers"] = most
        found.settings["minWorkers"] = min(found.settings.get("minWorkers", most), most)
    found.settings = SERVER | found.settings


def _look_at_the_rest(archive: ArchiverMar, found: Adopted, handler: str) -> None:
    known = {archive.model.get(key) for key in ("modelFile", "serializedFile", "configFile")}
    known |= {handler, f"{handler}.py", LABEL_FILE, "MAR-INF/MANIFEST.json"}
    rest = sorted(name for name in archive.names if name not in known)
    if rest:
        more = f" and {len(rest) - 5} more" if len(rest) > 5 else ""  # noqa: PLR2004 a line's worth
        found.untold.append(f"not carried over: {plain(', '.join(rest[:5]))}{more}")


def _files(archive: ArchiverMar, found: Adopted) -> Iterator[tuple[str, tuple[bytes, str]]]:
    """Yield the name, the bytes and the description of each file but the weights."""
    if found.model is not None and (name := archive.named("modelFile")) is not None:
        kind = f", whose outputs are {found.model.kind}" if found.model.kind else ""
        yield _class_file(found.name), (archive.text(name) or b"", f"the class {found.model.name}{kind}")
    if found.labels is not None:
        text = json.dumps({str(number): label for number, label in enumerate(found.labels)}, indent=2)
        yield LABEL_FILE, (text.encode() + b"\n", f"{len(found.labels)} labels")
    yield CONFIG, (_config(found).encode(), "the contract")


def _write(
    folder: Path, found: Adopted, files: Mapping[str, tuple[bytes, str]], weights: Path | None
) -> dict[str, str]:
    """Write files that are not there yet, or none at all. Raises NotAdopted and OSError."""
    targets = [folder / name for name in files]
    described = {name: what for name, (_, what) in files.items()}
    kept = None
    if weights is not None and found.weights is not None:
        kept = folder / f"{found.name}{found.weights.ending}"
        targets.append(kept)
        described[kept.name] = (
            f"the weights, {len(found.weights.shapes)} tensors" if found.weights.shapes else "the model"
        )
    for target in targets:
        if target.exists() or target.is_symlink():
            raise NotAdopted(
                f"{target} is there already, and stays as it is; name another folder, or move it away"
            )
    if (folder / GOLDEN).is_symlink() or ((folder / GOLDEN).exists() and not (folder / GOLDEN).is_dir()):
        raise NotAdopted(f"{folder / GOLDEN} is no folder; name another folder, or move it away")
    with contextlib.ExitStack() as undo:
        for name, (data, _) in files.items():
            with (folder / name).open("xb") as file:
                undo.callback((folder / name).unlink)
                file.write(data)
        if kept is not None and weights is not None:
            with kept.open("xb") as file, weights.open("rb") as source:
                undo.callback(kept.unlink)
                shutil.copyfileobj(source, file)
        (folder / GOLDEN).mkdir(exist_ok=True)
        undo.pop_all()
    return {**described, f"{GOLDEN}/": "for images whose answers you know; the build needs some"}


def _config(found: Adopted) -> str:
    """Return a model-config.yaml; what is not certain stands in comments, so that the build asks for it."""
    told = found.preprocessing
    lines = [f"# From {found.origin}: what its handler does to an image. Check it.", "input:"]
    if told.doubts:
        lines += [f"  # {doubt}" for doubt in told.doubts]
        lines.append(
            "  # So none of this is certain. Take away the # of what is right, and correct the rest."
        )
        found.untold += [f"input: {doubt}" for doubt in told.doubts]
    off = "# " if told.doubts else ""
    for key in ("color", "resize", "size", "mean", "std"):
        if (value := told.input.get(key)) is not None:
            lines.append(f"  {off}{key}: {_yaml(value)}")
        elif key in REMEDIES:
            lines.append(f"  # {key}:    not told by the handler: {REMEDIES[key]}")
            found.untold.append(f"input.{key}: write {REMEDIES[key]}, into {CONFIG}")
    lines += ["", *_labels_and_outputs(found), "", "# How TorchServe runs it."]
    lines += [f"{key}: {value}" for key, value in found.settings.items()]
    return "\n".join(lines) + "\n"


def _labels_and_outputs(found: Adopted) -> Iterator[str]:
    if found.is_multi_label:
        yield "# Each label is judged by itself, by a sigmoid, and here an image gets one label."
        yield f"# labels: {LABEL_FILE}"
        found.untold.append(
            "labels: the model judges each label by itself (a sigmoid), and here an image gets one "
            "label; serve it so only if that is what you want"
        )
        return
    if found.labels is None:
        yield "# labels:    not told by the archive: a list of names, one an output, in quotes"
        found.untold.append(f"labels: list one name an output, in quotes, in {CONFIG}")
    else:
        yield f"labels: {LABEL_FILE}"
    if found.model is not None and found.model.kind is not None:
        yield f"{OUTPUTS}: {found.model.kind}"


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=sys.maxsize)
    return text.removesuffix("\n...\n").strip()


def _class_file(name: str) -> str:
    """Return a file's name whose stem Python can import."""
    return re.sub(r"\W", "_", name) + ".py"


def _arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mar", type=Path, help="a .mar of torch-model-archiver")
    parser.add_argument(
        "folder", type=Path, help="where the model folder goes; it may be there, its files may not"
    )
    parser.add_argument("--name", help="another name for the model")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
