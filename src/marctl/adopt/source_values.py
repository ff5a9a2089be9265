"""Evaluate simple expressions in Python source without running it."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

# Length of a list, also of one written as [0.5] * 3; an image has four channels at most.
MOST_TIMES = 16
MOST_WHOLE = 2**31  # far more than any size; an integer in a source may have any number of digits
OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
MOST_BITS = 4096
Scope = dict[str, ast.expr | None]


class Unknown(ValueError):
    """A value that is known only when the source is run."""


def parsed(source: bytes) -> ast.Module | None:
    """Return a source's tree, or None if it is not valid Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    # Python reads hexadecimal numbers of any length, but does not print integers of thousands of digits.
    long = any(
        isinstance(node, ast.Constant) and type(node.value) is int and node.value.bit_length() > MOST_BITS
        for node in ast.walk(tree)
    )
    return None if long else tree


def scope_of(tree: ast.AST) -> Scope:
    """Return the value assigned to each name, also as `self.x`; None if a name has several values."""
    scope: Scope = {}
    for node in ast.walk(tree):
        for target, value in _assigned(node):
            for name in (target, target.removeprefix("self.")):
                scope[name] = value if name not in scope or _same(scope[name], value) else None
    return scope


def _assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    match node:
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
            pairs: Iterable[tuple[ast.expr, ast.expr]] = zip(names, values, strict=False)
        case ast.Assign(targets=targets, value=value):
            pairs = ((target, value) for target in targets)
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            pairs = [(target, value)]
        case _:
            return
    for place, given in pairs:
        if (name := dotted(place)) is not None:
            yield name, given


def _same(one: ast.expr | None, other: ast.expr) -> bool:
    return one is not None and ast.dump(one) == ast.dump(other)


def dotted(node: ast.AST) -> str | None:
    """Return an expression's dotted name, such as `transforms.Resize`, or None if it is not a name."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            before = dotted(value)
            return None if before is None else f"{before}.{name}"
    return None


def last_name(call: ast.Call) -> str:
    """Return the last part of the name called, `Resize` in `transforms.Resize(28)`, else an empty string."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def value_of(node: ast.expr, scope: Scope, depth: int = 0) -> Any:
    """Return the value of an expression: a number, string, bool, None or list. Raises Unknown."""
    if depth > 20:  # noqa: PLR2004 deeper than anybody writes, and ends circular names
        raise Unknown(shown(node))
    match node:
        case ast.Constant(value=int() as value) if abs(value) > MOST_WHOLE:
            raise Unknown("an integer of many digits")
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            return _flat(node, elements, scope, depth)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(value_of(operand, scope, depth + 1), node)
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in OPERATORS:
            return _computed(node, value_of(left, scope, depth + 1), value_of(right, scope, depth + 1))
    name = dotted(node)
    known = scope.get(name) or scope.get(name.rpartition(".")[2]) if name is not None else None
    if known is None:
        raise Unknown(shown(node))
    return value_of(known, scope, depth + 1)


def _flat(node: ast.expr, elements: list[ast.expr], scope: Scope, depth: int) -> list[Any]:
    """Return a short flat list: nested lists of names could double with each line of source."""
    if len(elements) > MOST_TIMES:
        raise Unknown("a list of more numbers than an image has channels")
    values = []
    for element in elements:
        value = value_of(element, scope, depth + 1)
        if isinstance(value, list):
            raise Unknown(shown(node))
        values.append(value)
    return values


def _computed(node: ast.BinOp, left: Any, right: Any) -> Any:
    if (
        isinstance(node.op, ast.Mult)
        and isinstance(left, list)
        and type(right) is int
        and len(left) * right <= MOST_TIMES
    ):
        return left * right
    try:
        value = OPERATORS[type(node.op)](_number(left, node), _number(right, node))
    except ArithmeticError as error:
        raise Unknown(shown(node)) from error
    if abs(value) > MOST_WHOLE:
        raise Unknown(shown(node))
    return value


def _number(value: Any, node: ast.expr) -> float:
    if type(value) not in (int, float):
        raise Unknown(shown(node))
    number: float = value
    return number


def arguments(call: ast.Call, names: tuple[str, ...], scope: Scope) -> dict[str, Any]:
    """Return the values of a call's arguments by name, including positional ones. Raises Unknown."""
    if len(call.args) > len(names) or any(isinstance(one, ast.Starred) for one in call.args):
        raise Unknown(shown(call))
    given: dict[str, Any] = {}
    for name, node in zip(names, call.args, strict=False):
        given[name] = value_of(node, scope)
    for keyword in call.keywords:
        if keyword.arg not in names or keyword.arg in given:
            raise Unknown(shown(call))
        given[keyword.arg] = value_of(keyword.value, scope)
    return given


def shown(node: ast.AST) -> str:
    """Return source as one printable line, for a message or a comment."""
    try:
        return plain(ast.unparse(node))
    except (RecursionError, ValueError):
        return "an expression"


def plain(text: str, most: int = 100) -> str:
    """Return text as one line of printable characters, cut after `most`."""
    line = "".join(
        sign if sign.isprintable() else ascii(sign)[1:-1] for sign in " ".join(text[:1000].split())
    )
    return line if len(line) <= most else line[:most] + "..."
