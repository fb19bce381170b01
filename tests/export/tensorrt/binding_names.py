"""Which names of TensorRT's bindings a source file uses: followed through the code, version by version.

`trt` and `self._trt` are the module. A value gets a class where it is made (`trt.Builder(...)`), where a
method returns it (the arrow in pybind11's signature), and where a parameter typed `Any`, or what a function
of the same file returns as `Any`, carries the name of such a value. Every attribute of module, class or
instance is looked up, and every keyword of a call.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .bindings import Described

_RETURNS = re.compile(r"-> (?:Optional\[)?[\w.:]*?(\w+)\]?(?: \| None)?$")
_MODULE = "trt"


@dataclass(frozen=True)
class Value:
    """What an expression is: the module, a class of it, a method, an instance, or a list of instances."""

    kind: str  # module, class, method, instance, list; any: what a function of the file gives
    name: str = ""
    signature: str = ""


@dataclass
class Uses:
    """What the walk has found: names used, those missing, and the classes of variables by name."""

    used: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    variables: dict[str, set[str]] = field(default_factory=dict)


def uses_of(files: Iterable[Path], module: Described) -> Uses:
    """Walk the files until no variable gets a class any more; places are `file:line`."""
    trees = [(path.name, ast.parse(path.read_text(encoding="utf-8"))) for path in files]
    givers = {
        name: {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and _gives_any(node)}
        for name, tree in trees
    }
    variables: dict[str, set[str]] = {}
    while True:
        uses = Uses(variables={name: set(classes) for name, classes in variables.items()})
        for name, tree in trees:
            _Walk(name, module, uses, givers[name]).scope(tree, {})
        if uses.variables == variables:
            return uses
        variables = uses.variables


class _Walk:
    """One file."""

    def __init__(self, file: str, module: Described, uses: Uses, givers: set[str]) -> None:
        self._file, self._module, self._uses, self._givers = file, module, uses, givers

    def scope(self, tree: ast.AST, known: dict[str, Value | None]) -> None:
        """A module, class or function body; functions inside see what stands around them."""
        local = dict(known)
        if isinstance(tree, (ast.FunctionDef, ast.Lambda)):
            for argument in (*tree.args.args, *tree.args.kwonlyargs):
                local[argument.arg] = self._parameter(argument)
        inner: list[ast.AST] = []
        for node in _in_order(tree, inner):
            self._statement(node, local)
        for node in inner:
            self.scope(node, local)

    def _parameter(self, argument: ast.arg) -> Value | None:
        if argument.annotation is not None and ast.unparse(argument.annotation) != "Any":
            return None
        return self._by_name(argument.arg)

    def _by_name(self, name: str) -> Value | None:
        if name == _MODULE:
            return Value("module")
        classes = self._uses.variables.get(name, set())
        return Value("instance", next(iter(classes))) if len(classes) == 1 else None

    def _statement(self, node: ast.AST, local: dict[str, Value | None]) -> None:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            value = self._value(node.value, local)
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                self._bind(target, value, local)
        elif isinstance(node, (ast.For, ast.comprehension)):
            listed = self._value(node.iter, local)
            item = Value("instance", listed.name) if listed and listed.kind == "list" else None
            self._bind(node.target, item, local)
        elif isinstance(node, ast.expr):
            self._value(node, local)

    def _bind(self, target: ast.AST, value: Value | None, local: dict[str, Value | None]) -> None:
        if isinstance(target, ast.Name):
            name = target.id
            local[name] = self._by_name(name) if value is not None and value.kind == "any" else value
        elif isinstance(target, ast.Attribute) and _is_self(target.value):
            name = target.attr.lstrip("_")
        else:
            return
        if value is not None and value.kind == "instance":
            self._uses.variables.setdefault(name, set()).add(value.name)

    def _value(self, node: ast.AST, local: dict[str, Value | None]) -> Value | None:
        if isinstance(node, ast.Name):
            return Value("module") if node.id == _MODULE else local.get(node.id)
        if isinstance(node, ast.Attribute):
            if _is_self(node.value):
                return self._by_name(node.attr.lstrip("_"))
            owner = self._value(node.value, local)
            return self._member(owner, node) if owner is not None else None
        if isinstance(node, ast.Call):
            return self._called(node, local)
        if isinstance(node, ast.ListComp):
            inside = dict(local)
            for generator in node.generators:
                self._statement(generator, inside)
            item = self._value(node.elt, inside)
            return Value("list", item.name) if item is not None and item.kind == "instance" else None
        return None

    def _member(self, owner: Value, node: ast.Attribute) -> Value | None:
        if owner.kind == "module":
            return self._found(node.attr, node.attr in self._module.names, node)
        if owner.kind not in ("class", "instance") or node.attr.startswith("__"):
            return None
        members = self._module.classes[owner.name]
        path = f"{owner.name}.{node.attr}"
        return self._found(path, node.attr in members, node, members.get(node.attr, ""))

    def _found(self, path: str, exists: bool, node: ast.AST, signature: str = "") -> Value | None:
        self._uses.used.add(path)
        if not exists:
            self._uses.missing.add(f"{path} ({self._file}:{getattr(node, 'lineno', 0)})")
            return None
        return Value("class", path) if path in self._module.classes else Value("method", path, signature)

    def _called(self, node: ast.Call, local: dict[str, Value | None]) -> Value | None:
        own = node.func.attr if isinstance(node.func, ast.Attribute) and _is_self(node.func.value) else ""
        if (own or getattr(node.func, "id", "")) in self._givers:
            return Value("any")
        function = self._value(node.func, local)
        if function is None or function.kind not in ("class", "method"):
            return None
        signature = function.signature
        if function.kind == "class":
            signature = self._module.classes[function.name].get("__init__", "")
        for keyword in node.keywords:
            if keyword.arg and f"{keyword.arg}:" not in signature:
                where = f"{self._file}:{node.lineno}"
                self._uses.missing.add(f"{function.name}({keyword.arg}=) ({where})")
        if function.kind == "class":
            return Value("instance", function.name)
        returned = _RETURNS.search(signature)
        for name in (
            (returned[1], returned[1][1:]) if returned else ()
        ):  # IParserError is bound as ParserError
            if name in self._module.classes:
                return Value("instance", name)
        return None


def _in_order(tree: ast.AST, inner: list[ast.AST]) -> Iterator[ast.AST]:
    """The nodes of one scope, outer before inner, top to bottom; scopes inside are put aside."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
            inner.append(child)
            if isinstance(child, ast.ClassDef):
                yield from child.bases
            continue
        yield child
        if isinstance(child, (ast.ListComp, ast.GeneratorExp, ast.SetComp)):  # written behind, bound before
            child = ast.Tuple([*child.generators, child.elt])  # type: ignore[list-item]
        yield from _in_order(child, inner)


def _gives_any(node: ast.FunctionDef) -> bool:
    return node.returns is not None and ast.unparse(node.returns) == "Any"


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"
