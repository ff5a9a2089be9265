"""Find out what a model's class returns and needs from its source, which is never run."""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from marctl.adopt.source_values import dotted, last_name, parsed, plain

LOGITS, LOG_PROBABILITIES, PROBABILITIES, SIGMOID = "logits", "log-probabilities", "probabilities", "sigmoid"
# The kind of outputs that a model's last operation gives.
KINDS = {
    "log_softmax": LOG_PROBABILITIES,
    "LogSoftmax": LOG_PROBABILITIES,
    "softmax": PROBABILITIES,
    "Softmax": PROBABILITIES,
    "sigmoid": SIGMOID,
    "sigmoid_": SIGMOID,
    "Sigmoid": SIGMOID,
    "Linear": LOGITS,
    "linear": LOGITS,
}
# Operations that change only the shape of outputs, or nothing at all in a trained model.
PASSING = frozenset(
    {"view", "reshape", "flatten", "squeeze", "float", "Flatten", "Identity", "Dropout", "dropout"}
)
# Modules that every server has.
SERVED = frozenset({"torch", "numpy", "PIL", "ts"})
MOST_STEPS = 20


@dataclass
class ModelClass:
    """A class, the kind of its outputs if known, and a sentence for each problem."""

    name: str
    kind: str | None = None
    faults: list[str] = field(default_factory=list)


def class_of(source: bytes, name: str, members: Collection[str]) -> ModelClass:
    """Return what is known about a model file; `members` are those of its archive."""
    tree = parsed(source)
    if tree is None:
        return ModelClass("?", faults=[f"{plain(name)} is not valid Python"])
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    if len(classes) != 1:
        named = plain(", ".join(one.name for one in classes)) or "none"
        return ModelClass(
            "?", faults=[f"{plain(name)} defines {len(classes)} classes ({named}); TorchServe expects one"]
        )
    [only] = classes
    told = ModelClass(plain(only.name), _kind(only))
    told.faults += _missing(tree, members)
    told.faults += _arguments(only)
    return told


def _missing(tree: ast.Module, members: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each module that a class imports and that not every server has."""
    for module in sorted(set(_modules(tree)) - SERVED - sys.stdlib_module_names):
        if f"{module}.py" in members:
            yield (
                f"the class imports {plain(module)}, another file of the old archive: move what it needs "
                "into the class file, or add the file to the folder and to archive.extra_files"
            )
        else:
            yield f"the class imports {plain(module)}: add that package to requirements/own.txt"


def _modules(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0] or node.names[0].name


def _arguments(model: ast.ClassDef) -> Iterator[str]:
    init = _method(model, "__init__")
    if init is None:
        return
    given = init.args
    needed = len(given.posonlyargs + given.args) - 1 - len(given.defaults)
    if needed > 0 or None in given.kw_defaults:
        yield f"{plain(model.name)} needs arguments, but TorchServe passes none: give each a default"


def _kind(model: ast.ClassDef) -> str | None:
    """Return the kind of outputs of `forward`, or None if the source does not show it."""
    forward = _method(model, "forward")
    if forward is None:
        return None
    layers = {
        name: node.value
        for node in ast.walk(model)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if (name := dotted(target) or "").startswith("self.")
    }
    returned = [node for node in ast.walk(forward) if isinstance(node, ast.Return)]
    kinds = {_of(node.value, forward, layers) for node in returned}
    return kinds.pop() if len(kinds) == 1 else None


def _of(node: ast.expr | None, forward: ast.FunctionDef, layers: dict[str, ast.expr]) -> str | None:
    """Trace a returned value back to the call that determines its kind."""
    line = sys.maxsize
    for _ in range(MOST_STEPS):
        if isinstance(node, ast.Name):
            found = _assigned(forward, node.id, line)
            if found is None:
                return None
            line, node = found.lineno, found.value
            continue
        if not isinstance(node, ast.Call):
            return None
        layer = layers.get(dotted(node.func) or "", node.func)
        kind = _of_layer(layer) if isinstance(layer, ast.Call) else KINDS.get(last_name(node))
        if kind is not None:
            return kind
        if (last_name(layer) if isinstance(layer, ast.Call) else last_name(node)) not in PASSING:
            return None
        node = _taken_by(node)
    return None


def _taken_by(call: ast.Call) -> ast.expr | None:
    """Return a call's input: `x` in `torch.flatten(x, 1)` and in `x.view(-1, 10)`."""
    if isinstance(call.func, ast.Attribute) and (not call.args or last_name(call) in ("view", "reshape")):
        return call.func.value
    return call.args[0] if call.args else None


def _of_layer(made: ast.Call) -> str | None:
    """Return the kind of outputs of a layer's constructor; in a Sequential, the last layer counts."""
    for _ in range(MOST_STEPS):
        if last_name(made) != "Sequential" or not made.args:
            return KINDS.get(last_name(made))
        rest = [one for one in made.args if not (isinstance(one, ast.Call) and last_name(one) in PASSING)]
        if not rest or not isinstance(rest[-1], ast.Call):
            return None
        made = rest[-1]
    return None


def _assigned(forward: ast.FunctionDef, name: str, line: int) -> ast.Assign | None:
    """Return the last assignment to a name before a line, or None if it is in a branch or a loop."""
    found = [
        node
        for node in ast.walk(forward)
        if isinstance(node, ast.Assign)
        and node.lineno < line
        and any(dotted(target) == name for target in node.targets)
    ]
    last = max(found, key=lambda node: node.lineno, default=None)
    return last if last in forward.body else None


def _method(model: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    return next(
        (node for node in model.body if isinstance(node, ast.FunctionDef) and node.name == name), None
    )
