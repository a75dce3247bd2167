"""Imports point one way: down. The rules are data, the checker reads source text, and the tree is walked by it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "platform" / "bothways"

# The first component below `bothways` says the layer; a module may import its own layer or a lower one.
LAYERS: tuple[tuple[str, ...], ...] = (
    # words: the standard library, numpy, pydantic, yaml
    ("errors", "lazy", "seeding", "registry", "contracts", "task_contract", "results", "config", "spaces"),
    # tools
    ("text", "assets", "metrics", "text_scores"),
    ("lexicons",),
    # families: a member is a file
    ("tasks", "input_side", "output_side", "joint"),
    # pure logic: no Ray, no Optuna, no MLflow
    (
        *("policy", "data", "tokenization", "batches", "models", "pretraining", "training", "few_shot", "loop"),
        *("predict", "ensembles", "analysis", "report", "learning_curve", "comparison"),
    ),
    # edges: Ray, Optuna, MLflow
    ("edges",),
    # door
    ("cli", "__main__"),
)
LAYER = {part: layer for layer, parts in enumerate(LAYERS) for part in parts}
STRANGERS = LAYERS[3]  # families: none of these knows another,
MEETING = ("joint", "output_side")  # but the first knows what members of the second share
EDGE_ONLY = {"ray", "optuna", "mlflow"}
LAZY_BELOW_LOGIC = {"torch", "transformers"}  # layers 0-3 load these at first use, never at import
WORDS_MAY_IMPORT = {"numpy", "pydantic", "pydantic_core", "yaml"}
# These look a module up by its name: a member, a lazy library, a command.
NAMES_MODULES_AT_RUN_TIME = {"bothways.registry", "bothways.lazy", "bothways.cli"}


@dataclass(frozen=True, kw_only=True)
class Import:
    """`module` imports `target` (absolute, as written plus the name taken from it) on `line`."""

    module: str
    target: str
    line: int
    at_top: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def literal(argument: ast.expr) -> str:
    """The module a call names: `"a.b"` → a.b, `f"a.{x}"` → a, anything computed → ?."""
    head = argument.values[0] if isinstance(argument, ast.JoinedStr) else argument
    if not isinstance(head, ast.Constant):
        return "?"
    return str(head.value) if head is argument else str(head.value).rpartition(".")[0] or "?"


@cache
def imports(source: str, module: str, is_package: bool = False) -> tuple[Import, ...]:
    """Every import of a module, in functions too, except those under `if TYPE_CHECKING:`, which never run.

    A literal `import_module("x")` or `__import__("x")` counts; one whose argument is computed has target `?`.
    """

    def visit(node: ast.AST, at_top: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for branch in node.orelse:
                yield from visit(branch, at_top)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module=module, target=alias.name, line=node.lineno, at_top=at_top)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                base = ".".join([*parents[: len(parents) + is_package - node.level], *filter(None, [base])])
            for alias in node.names:
                yield Import(module=module, target=f"{base}.{alias.name}", line=node.lineno, at_top=at_top)
        elif isinstance(node, ast.Call) and called(node.func) in {"import_module", "__import__"}:
            yield Import(module=module, target=literal(node.args[0]), line=node.lineno, at_top=at_top)
        inside = at_top and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    return tuple(visit(ast.parse(source), True))


def part(module: str) -> str:
    """`bothways.input_side.augment.random_swap` → `input_side`; the package itself → ``."""
    return module.split(".")[1] if "." in module else ""


def is_member(module: str) -> bool:
    """True for a file that registers a method: `tasks.x`, `input_side.augment.x`, … and not `_helper`."""
    path = module.split(".")[1:]
    depth = {"tasks": 2, "joint": 3, "input_side": 3, "output_side": 3}.get(path[0] if path else "", 0)
    return len(path) == depth and not path[-1].startswith("_")


def broken_rule(found: Import) -> str:
    """The rule an import breaks, or an empty string. `found.target` is a module of ours or anybody's."""
    top = found.target.split(".")[0]
    here = part(found.module)
    layer = LAYER.get(here, 0)
    if top == "?":
        return "" if found.module in NAMES_MODULES_AT_RUN_TIME else "computes the name of the module it imports"
    if top in EDGE_ONLY and here != "edges":
        return f"only edges/ may import {top}"
    if top in LAZY_BELOW_LOGIC and layer <= 3 and found.at_top:
        return f"layers 0-3 take {top} from bothways.lazy (or import it where it is used)"
    if top != "bothways":
        alien = layer == 0 and top not in WORDS_MAY_IMPORT and top not in sys.stdlib_module_names
        return f"layer 0 does not know {top}" if alien and here else ""
    there = part(found.target)
    if LAYER.get(there, 0) > layer and here:
        return f"layer {layer} may not import layer {LAYER[there]}"
    if here in STRANGERS and there in STRANGERS and here != there:
        meets = (here, there) == MEETING and not is_member(found.target)
        return "" if meets else "families never import each other"
    if is_member(found.module) and is_member(found.target) and found.module != found.target:
        return "a member never imports another member"
    return ""


def sources() -> dict[str, tuple[str, bool]]:
    """Every module of the package: its name → (source text, whether it is a package)."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = ["bothways", *file.relative_to(PACKAGE).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        found[".".join(parts[:-1] if is_package else parts)] = (file.read_text("utf-8"), is_package)
    return found


def resolved(tree: Mapping[str, tuple[str, bool]]) -> list[Import]:
    """Every import of the tree; `from bothways.a import b` is `bothways.a.b` if that is a module, else `bothways.a`."""

    def module(target: str) -> str:
        a_name_in_it = target.startswith("bothways.") and target.count(".") > 1 and target not in tree
        return target.rpartition(".")[0] if a_name_in_it else target

    return [
        replace(one, target=module(one.target))
        for name, (text, is_package) in tree.items()
        for one in imports(text, name, is_package)
    ]


def cycles(found: list[Import]) -> list[list[str]]:
    """Groups of modules that import each other (Tarjan's strongly connected components of two or more)."""
    graph: dict[str, set[str]] = {}
    for one in found:
        if one.target.startswith("bothways"):
            graph.setdefault(one.module, set()).add(one.target)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def connect(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                connect(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1 or node in graph.get(node, ()):
                groups.append(sorted(group))

    for node in graph:
        if node not in index:
            connect(node)
    return groups


def test_every_module_has_a_layer() -> None:
    known = {*LAYER, ""}
    assert len(sources()) > 20
    assert [name for name in sources() if part(name) not in known] == []


def test_every_import_points_down() -> None:
    found = resolved(sources())
    assert len(found) > 100
    assert [f"{one}: {rule}" for one in found if (rule := broken_rule(one))] == []


def test_no_two_modules_import_each_other() -> None:
    assert cycles(resolved(sources())) == []


@pytest.mark.parametrize(
    ("module", "source", "rule"),
    [
        ("bothways.training", "import ray", "only edges/ may import ray"),
        ("bothways.training", "import ray.train as rt", "only edges/ may import ray"),
        ("bothways.training", "def f():\n    from ray import train", "only edges/ may import ray"),
        ("bothways.cli.tune", "import importlib\nimportlib.import_module('mlflow')", "only edges/ may import mlflow"),
        ("bothways.analysis", "__import__('optuna.visualization')", "only edges/ may import optuna"),
        ("bothways.data", "import importlib\nimportlib.import_module(f'ray.{part}')", "only edges/ may import ray"),
        ("bothways.data", "from importlib import import_module\nimport_module(name)", "computes the name"),
        ("bothways.text", "import torch", "bothways.lazy"),
        ("bothways.config", "import pandas", "layer 0 does not know pandas"),
        ("bothways.config", "from bothways.training.trial import run", "may not import layer 4"),
        ("bothways.seeding", "from . import data", "may not import layer 4"),
        ("bothways.policy", "from .edges.local import execute", "may not import layer 5"),
        ("bothways.input_side.augment.x", "from bothways.output_side.objectives import rdrop", "each other"),
        ("bothways.tasks.x", "import bothways.input_side.base", "each other"),
        ("bothways.output_side.objectives.x", "import bothways.joint.weightings", "each other"),
        ("bothways.joint.objectives.x", "from bothways.output_side.objectives.rdrop import RDrop", "each other"),
        ("bothways.output_side.objectives.x", "from bothways.output_side.objectives.rdrop import RDrop", "member"),
    ],
)
def test_the_checker_catches_an_import_planted_in_a_pure_module(module: str, source: str, rule: str) -> None:
    tree = {**sources(), module: (source, False)}
    broken = [broken_rule(one) for one in resolved(tree) if one.module == module]
    assert any(rule in one for one in broken), broken


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("bothways.edges.ray_data", "import ray"),
        ("bothways.contracts", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("bothways.tasks.x", "def f():\n    import torch"),
        ("bothways.models", "import torch, transformers"),
        ("bothways.cli.tune", "from bothways.edges import sweep"),
        ("bothways.output_side.objectives.x", "from bothways.output_side.objectives._views import two"),
        ("bothways.joint.objectives.x", "from bothways.output_side.objectives import Objective"),
    ],
)
def test_the_checker_lets_a_rightful_import_pass(module: str, source: str) -> None:
    tree = {**sources(), module: (source, False)}
    assert [rule for one in resolved(tree) if one.module == module and (rule := broken_rule(one))] == []


def test_the_checker_finds_a_planted_cycle() -> None:
    tree = {
        **sources(),
        "bothways.one": ("from bothways import two", False),
        "bothways.two": ("def late():\n    from bothways.three import run", False),
        "bothways.three": ("import bothways.one", False),
    }
    assert cycles(resolved(tree)) == [["bothways.one", "bothways.three", "bothways.two"]]
