"""Find out from a TorchServe handler's source what it does to an image, as the numbers of a contract.

The source is parsed and never run. Whatever is unknown, or cannot be expressed in a contract, is a doubt.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from marctl.adopt.source_values import (
    Scope,
    Unknown,
    arguments,
    dotted,
    last_name,
    parsed,
    plain,
    scope_of,
    shown,
)

IMAGE_CLASSIFIER = "image_classifier"
# TorchServe's own classes: with transforms, with a preprocess that needs some, and without either.
CLASSIFIER, VISION, BASE = "ImageClassifier", "VisionHandler", "BaseHandler"
DEFAULTS: dict[str, Any] = {
    "color": "rgb",
    "resize": 256,
    "size": [224, 224],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
PREPROCESS, HANDLE = "preprocess", "handle"
CONTAINERS = ("Compose", "Sequential")
# torchvision's functions, and the class that does the same as each.
FUNCTIONS = {
    "resize": "Resize",
    "center_crop": "CenterCrop",
    "to_tensor": "ToTensor",
    "normalize": "Normalize",
    "to_grayscale": "Grayscale",
    "rgb_to_grayscale": "Grayscale",
    "pil_to_tensor": "PILToTensor",
    "to_image": "ToImage",
    "convert_image_dtype": "ConvertImageDtype",
    "to_dtype": "ToDtype",
}
# The parameters of each, in order; the last two of Resize have no effect on a PIL image.
PARAMETERS = {
    "Grayscale": ("num_output_channels",),
    "Resize": ("size", "interpolation", "max_size", "antialias"),
    "CenterCrop": ("size",),
    "Normalize": ("mean", "std", "inplace"),
    "ToTensor": (),
    "ToImage": (),
    "ToImageTensor": (),
    "PILToTensor": (),
    "ConvertImageDtype": ("dtype",),
    "ToDtype": ("dtype", "scale"),
}
# Calls before and after the transforms that change no pixel.
HARMLESS = frozenset({
    "get", "open", "BytesIO", "StringIO", "b64decode", "decodebytes", "decode", "encode", "isinstance",
    "append", "extend", "stack", "cat", "to", "cpu", "cuda", "device", "FloatTensor", "as_tensor",
    "unsqueeze", "unsqueeze_", "len", "enumerate", "range", "zip", "print", "info", "debug", "warning",
    "error", "exception", "read", "list", "dict", "tuple", "str", "int", "type", "bytes", "bytearray",
    "loads", "items", "keys", "values", "join", "format", "is_available", "no_grad", "inference_mode",
    "eval", "contiguous", "load", "copy", "verify", "seek", "getLogger", "time", "perf_counter", "super",
    "float", "float32", "preprocess", "inference", "postprocess", "initialize", "handle", "hasattr",
    "getattr", "next", "iter", "pop", "startswith", "strip", "map", "filter", "Variable", "add_time",
    "add_counter", "round", "ValueError", "Exception", "PredictionException", "image_processing",
    "add_or_update", "get_metric", "add_metric", "add_size", "add_percent", "Dimension",
})  # fmt: skip
# Names in time measurements, which are not arithmetic on pixels.
CLOCK = re.compile(r"time|start")
NOT_CARRIED = ("initialize", "inference", "postprocess", "handle")
DTYPES = ("float", "float32")


@dataclass
class Preprocessing:
    """The keys of a contract's `input` that are known, and a sentence for each doubt about the whole."""

    input: dict[str, Any] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    # What is known, but worth checking.
    remarks: list[str] = field(default_factory=list)
    # Whether the handler scores each label on its own.
    has_sigmoid: bool = False


def preprocessing_of(handler: str, source: bytes | None) -> Preprocessing:
    """Return what a handler does to an image; without a source, the name is one of TorchServe's handlers."""
    if source is None:
        if handler == IMAGE_CLASSIFIER:
            return Preprocessing(dict(DEFAULTS))
        return Preprocessing(
            doubts=[
                f"the handler {plain(handler)!r} is TorchServe's own, and its preprocessing is not known here"
            ]
        )
    tree = parsed(source)
    if tree is None:
        return Preprocessing(doubts=[f"the handler {plain(handler)} is not valid Python"])
    return _Handler(tree).preprocessing()


class _Handler:
    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._scope: Scope = scope_of(tree)
        self._imports = dict(_imports(tree))
        self._functions = {
            node.name: node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        self._own = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)} | set(
            self._functions
        )
        self._bases = {
            (dotted(base) or "").rpartition(".")[2]
            for node in tree.body
            if isinstance(node, ast.ClassDef)
            for base in node.bases
        }

    def preprocessing(self) -> Preprocessing:
        told = Preprocessing(
            has_sigmoid=any(
                last_name(call) in ("sigmoid", "sigmoid_", "Sigmoid", "expit")
                for call in ast.walk(self._tree)
                if isinstance(call, ast.Call)
            )
        )
        reading = [self._functions[name] for name in (PREPROCESS, HANDLE) if name in self._functions][:1]
        steps = self._steps(reading, told)
        if steps is not None:
            _Steps(self, told).read(steps)
        self._look_at(reading, steps or [], told)
        self._color_of_opening(reading, told)
        _check_channels(told)
        if own := [name for name in NOT_CARRIED if name in self._functions]:
            told.remarks.append(
                f"the handler's own {', '.join(own)} {'is' if len(own) == 1 else 'are'} not carried "
                "over; check what is done there"
            )
        return told

    def is_own(self, name: str) -> bool:
        """Return whether a name is a class or a function that the handler defines."""
        return name in self._own

    def values(self, call: ast.Call, name: str) -> dict[str, Any]:
        """Return a transform's arguments, without a function's first, the image. Raises Unknown."""
        if last_name(call) in FUNCTIONS and name != last_name(call):
            call = ast.Call(call.func, call.args[1:], call.keywords)
        known = {node.arg: node for node in call.keywords}
        # Arguments that are names: a dtype, or one of torchvision's interpolation modes.
        named: dict[str, str] = {
            key: dotted(known[key].value) or shown(known[key].value)
            for key in ("dtype", "interpolation")
            if key in known
        }
        rest = ast.Call(call.func, call.args, [node for node in call.keywords if node.arg not in named])
        for place, key in enumerate(PARAMETERS[name]):
            if key in ("dtype", "interpolation") and len(rest.args) > place:
                named[key] = dotted(rest.args[place]) or shown(rest.args[place])
                rest.args = [*rest.args[:place], ast.Constant(None), *rest.args[place + 1 :]]
        return {**arguments(rest, PARAMETERS[name], self._scope), **named}

    def _steps(self, reading: Sequence[ast.AST], told: Preprocessing) -> list[ast.expr] | None:
        """Return the transforms in order; None if they are TorchServe's own, or a doubt was added."""
        composed = list(self._composed(reading))
        if len(composed) == 1:
            return self._elements(composed[0], told)
        if len(composed) > 1:
            names = ", ".join(f"line {call.lineno}" for call in composed)
            told.doubts.append(
                f"the handler has several Compose ({names}), and which one it uses is not clear"
            )
            return None
        calls = [call for function in reading for call in _in_order(function) if self._is_functional(call)]
        if calls:
            return list(calls)
        if CLASSIFIER in self._bases and (PREPROCESS not in self._functions or self._uses_inherited(reading)):
            told.input.update(DEFAULTS)
            return None
        told.doubts.append("the handler has no torchvision transforms that can be read")
        return None

    def _uses_inherited(self, reading: Sequence[ast.AST]) -> bool:
        return any(
            dotted(node) == "self.image_processing"
            or (isinstance(node, ast.Call) and last_name(node) == PREPROCESS)
            for one in reading
            for node in ast.walk(one)
        )

    def _composed(self, reading: Sequence[ast.AST]) -> Iterator[ast.Call]:
        """Yield each Compose; of several, those that `preprocess` or TorchServe's own handler uses."""
        found = [
            call
            for call in ast.walk(self._tree)
            if isinstance(call, ast.Call)
            and last_name(call) in CONTAINERS
            and not self.is_own(last_name(call))
            and (last_name(call) == CONTAINERS[0] or self._holds_transforms(call))
        ]
        if len(found) < 2:  # noqa: PLR2004 there is no choice
            yield from found
            return
        used = {dotted(node) for function in reading for node in ast.walk(function)}
        if PREPROCESS not in self._functions:
            used.add("image_processing")
        names = {id(value): name for name, value in self._scope.items() if value is not None}
        chosen = [call for call in found if (name := names.get(id(call))) in used or f"self.{name}" in used]
        yield from chosen or found

    def _holds_transforms(self, call: ast.Call) -> bool:
        return any(isinstance(one, ast.Call) and last_name(one) in PARAMETERS for one in call.args)

    def _elements(self, call: ast.Call, told: Preprocessing) -> list[ast.expr] | None:
        steps: ast.expr | None = (
            call.args[0] if len(call.args) == 1 and last_name(call) == CONTAINERS[0] else None
        )
        if steps is None and last_name(call) != CONTAINERS[0]:
            steps = ast.List(call.args)
        if (name := dotted(steps) if steps is not None else None) is not None:
            steps = self._scope.get(name)
        if not isinstance(steps, ast.List | ast.Tuple):
            told.doubts.append(f"the steps of {shown(call)} are not known")
            return None
        return [self._scope.get(dotted(one) or "") or one for one in steps.elts]

    def _is_functional(self, call: ast.Call) -> bool:
        """Return whether a call is to one of torchvision's functions, not a method of the same name."""
        path = self._imports.get((dotted(call.func) or "").partition(".")[0], "")
        whole = f"{path}.{(dotted(call.func) or '').partition('.')[2]}"
        return last_name(call) in FUNCTIONS and "transforms" in whole and "functional" in whole

    def _look_at(self, reading: Sequence[ast.AST], steps: Sequence[ast.AST], told: Preprocessing) -> None:
        """Add a doubt for everything that preprocessing does besides the transforms."""
        if not reading and not self._bases & {CLASSIFIER, VISION}:
            told.doubts.append(
                "the handler has no preprocess of its own, and the one it inherits reads no images"
            )
        inside = {id(node) for step in steps for node in _without_image(step)}
        # A pipeline is called by the name assigned to it, or made by a function.
        makers = {
            name
            for name, function in self._functions.items()
            for call in ast.walk(function)
            if isinstance(call, ast.Call) and last_name(call) in CONTAINERS
        }
        known = makers | {
            name.rpartition(".")[2]
            for name, value in self._scope.items()
            if isinstance(value, ast.Call) and last_name(value) in {*CONTAINERS, *makers}
        }
        harmless = known | HARMLESS | {"convert", *CONTAINERS}
        for node in self._reached(reading, harmless):
            if id(node) in inside:
                continue
            name = last_name(node) if isinstance(node, ast.Call) else ""
            if name and name not in harmless and name not in self._functions:
                told.doubts.append(f"the handler also does {shown(node)}")
            elif _computes(node) and not CLOCK.search(shown(node)):
                told.doubts.append(f"the handler also computes {shown(node)}")

    def _reached(self, reading: Sequence[ast.AST], known: Collection[str]) -> Iterator[ast.AST]:
        """Yield the nodes of functions, and of the handler's functions that they call, except conditions."""
        todo, seen = list(reading), set(known)
        while todo:
            function = todo.pop()
            conditions = {
                id(inner)
                for node in ast.walk(function)
                if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert)
                for inner in ast.walk(node.test)
            }
            for node in ast.walk(function):
                if id(node) in conditions:
                    continue
                name = last_name(node) if isinstance(node, ast.Call) else ""
                if name in self._functions and name not in seen:
                    seen.add(name)
                    todo.append(self._functions[name])
                yield node

    def _color_of_opening(self, reading: Sequence[ast.AST], told: Preprocessing) -> None:
        """Take the colour from `image.convert("L")` if no transform has it."""
        modes = {"L": "grayscale", "RGB": "rgb"}
        for call in (
            node for function in reading for node in ast.walk(function) if isinstance(node, ast.Call)
        ):
            if last_name(call) != "convert":
                continue
            mode = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
            color = modes.get(mode) if isinstance(mode, str) else None
            if color == "rgb" and told.input.get("color") == "grayscale":
                continue  # the result is grey in the end
            if color is None or told.input.get("color", color) != color:
                told.doubts.append(
                    f"the handler converts images with {shown(call)}, but its transforms differ"
                )
            else:
                told.input["color"] = color


class _Steps:
    """Translates transforms into the keys of a contract."""

    # By the first letters of Grayscale, Resize, CenterCrop, ToTensor and Normalize.
    ORDER = re.compile(r"(G?R?C?|R?G?C?|R?C?G?)TN?")

    def __init__(self, handler: _Handler, told: Preprocessing) -> None:
        self._handler, self._told = handler, told

    def read(self, steps: Sequence[ast.expr]) -> None:
        """Record each transform, and a doubt for whatever a contract cannot express."""
        done: list[str] = []
        for call in steps:
            if not isinstance(call, ast.Call):
                self._told.doubts.append(f"a contract cannot express {shown(call)}")
                continue
            name = FUNCTIONS.get(last_name(call), last_name(call))
            if name not in PARAMETERS or self._handler.is_own(last_name(call)):
                self._doubt(call)
                continue
            try:
                values = self._handler.values(call, name)
            except Unknown as unknown:
                self._told.doubts.append(f"{name}: the value of {unknown} is not known from the source")
                continue
            done.append(self._take(call, name, values))
        self._finish([name for name in done if name])

    def _take(self, call: ast.Call, name: str, values: dict[str, Any]) -> str:
        """Record one transform; return its name for ORDER, empty if it has no effect on its own."""
        into = self._told.input
        match name, values:
            case "Grayscale", {"num_output_channels": count} if count != 1:
                self._doubt(call)
            case "Grayscale", _:
                into["color"] = "grayscale"
            case "Resize", {"size": size}:
                self._resize(call, size, values)
            case "CenterCrop", {"size": size}:
                self._crop(call, size)
            case "Normalize", {"mean": mean, "std": std} if _are_numbers(mean) and _are_numbers(std):
                into["mean"], into["std"] = _listed(mean), _listed(std)
            case "ToTensor", _:
                pass
            case (("ToImage" | "ToImageTensor" | "PILToTensor"), _):
                return ""  # a tensor of integers; the next transform divides it
            case "ConvertImageDtype", {"dtype": str(kind)} if kind.rpartition(".")[2] in DTYPES:
                return "ToTensor"
            case "ToDtype", {"dtype": str(kind), "scale": True} if kind.rpartition(".")[2] in DTYPES:
                return "ToTensor"
            case _:
                self._doubt(call)
        return name

    def _resize(self, call: ast.Call, size: Any, values: dict[str, Any]) -> None:
        way = str(values.get("interpolation") or "BILINEAR").rpartition(".")[2].strip("'").upper()
        if way not in ("BILINEAR", "2") or values.get("max_size") is not None:
            self._doubt(call)
        match size:
            case int(side) | [int(side)]:
                self._told.input["resize"] = side
            case [int(height), int(width)]:
                self._told.input["size"] = [height, width]
            case _:
                self._doubt(call)

    def _crop(self, call: ast.Call, size: Any) -> None:
        into = self._told.input
        match size:
            case int(side) | [int(side)]:
                height, width = side, side
            case [int(tall), int(wide)]:
                height, width = tall, wide
            case _:
                self._doubt(call)
                return
        if into.get("resize", 0) < max(height, width):
            # There is no resize of the shorter side before it, or to a smaller size; a contract has no such
            # crop.
            self._doubt(call)
        into["size"] = [height, width]

    def _finish(self, done: list[str]) -> None:
        into, doubts = self._told.input, self._told.doubts
        if not self.ORDER.fullmatch("".join(name[0] for name in done)):
            doubts.append(
                f"the transforms are in an order that a contract cannot express: {', '.join(done) or 'none'}"
            )
        if "resize" in into and "size" not in into:
            side = into["resize"]
            into["size"] = [side, side]
            self._told.remarks.append(
                f"Resize({side}) does not fix the longer side; here {side} x {side} pixels are cropped"
            )
        if "Normalize" not in done and not doubts:
            into["mean"], into["std"] = [0.0], [1.0]
            self._told.remarks.append(
                "the transforms have no Normalize: mean 0 and std 1 keep grey levels from 0 to 1"
            )

    def _doubt(self, call: ast.Call) -> None:
        self._told.doubts.append(f"a contract cannot express {shown(call)}")


def _check_channels(told: Preprocessing) -> None:
    """Repeat mean and deviation for each channel, as torchvision does."""
    mean = told.input.get("mean")
    if mean is None:
        return
    color = told.input.setdefault("color", "rgb") if len(mean) > 1 else told.input.get("color")
    if color == "rgb" and len(mean) == 1:
        told.input["mean"], told.input["std"] = mean * 3, told.input["std"] * 3
    if color == "grayscale" and len(mean) > 1:
        told.doubts.append(f"Normalize has {len(mean)} means for the one channel of a grey image")


def _without_image(step: ast.AST) -> Iterator[ast.AST]:
    """Yield a transform's own nodes, without those of a function's first argument, the image."""
    if isinstance(step, ast.Call) and last_name(step) in FUNCTIONS:
        yield step
        for one in [*step.args[1:], *step.keywords]:
            yield from ast.walk(one)
        return
    yield from ast.walk(step)


def _are_numbers(value: Any) -> bool:
    return all(type(one) in (int, float) for one in _listed(value))


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _computes(node: ast.AST) -> bool:
    """Return whether a node may compute with pixels; string formatting and concatenation do not count."""
    match node:
        case (
            ast.BinOp(op=ast.Add(), left=one, right=other)
            | ast.AugAssign(op=ast.Add(), target=one, value=other)
        ):
            return any(isinstance(side, ast.Constant) and type(side.value) is float for side in (one, other))
        case (
            ast.BinOp(left=ast.Constant(value=str()), op=ast.Mod())
            | ast.BinOp(left=ast.Call(func=ast.Name("len")))
        ):
            return False
        case ast.BinOp() | ast.AugAssign() | ast.Subscript(slice=ast.Slice() | ast.Tuple() | ast.List()):
            return True
        case ast.UnaryOp(op=ast.USub() | ast.Invert(), operand=operand):
            return not isinstance(operand, ast.Constant)
        case ast.Compare(ops=operators):
            return any(isinstance(one, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for one in operators)
    return False


def _in_order(node: ast.AST) -> Iterator[ast.Call]:
    """Yield calls in evaluation order: a call's arguments before the call."""
    for child in ast.iter_child_nodes(node):
        yield from _in_order(child)
    if isinstance(node, ast.Call):
        yield node


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield each imported name and its dotted path."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield (
                        alias.asname or alias.name.partition(".")[0],
                        alias.name if alias.asname else alias.name.partition(".")[0],
                    )
            case ast.ImportFrom(module=module, names=names):
                for alias in names:
                    yield alias.asname or alias.name, f"{module or ''}.{alias.name}"
