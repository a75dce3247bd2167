"""The shape of a pipeline: which keys may stand where, and dotted paths into plain data (`optim.lr`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from bothways.config import Pipeline
from bothways.errors import UserError, did_you_mean
from bothways.registry import FAMILIES, Registry

Path = tuple[str | int, ...]


def parts(dotted: str) -> Path:
    """`policy.0.p` as ("policy", 0, "p"). Raises `UserError` for an empty part."""
    found = dotted.split(".")
    if not all(found):
        raise UserError(f"{shown(dotted)} is not a dotted path such as 'optim.lr'")
    return tuple(int(part) if re.fullmatch("0|[1-9][0-9]{0,3}", part) else part for part in found)


def dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)


def shown(value: Any, limit: int = 60) -> str:
    """A value as a message quotes it: escaped, on one line, cut to `limit` characters, in YAML's words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value[: limit + 1] if isinstance(value, str) else value)
    return text if len(text) <= limit + 2 else f"{text[:limit]}…"


def find(tree: Any, path: Path) -> Any:
    """The value at `path`. Raises `KeyError` when there is none."""
    for part in path:
        inside = (
            part in tree
            if isinstance(tree, Mapping)
            else isinstance(tree, list) and isinstance(part, int) and part < len(tree)
        )
        if not inside:
            raise KeyError(part)
        tree = tree[part]
    return tree


BESIDE = ("probability", "schedule", "weight")
"""The values that are written beside a component's own knobs (`config.Operation`, `config.Term`)."""


def assign(tree: dict[str, Any], path: Path, value: Any, root: Path = ()) -> None:
    """Put `value` at `path` of a dumped config, in place; one step past a list's end appends to it.

    Another `name` replaces a component by a bare one: its old knobs go, the numbers beside it stay.
    `root`: the path of `tree` in a pipeline. Raises `UserError` when the path leads nowhere.
    """
    node: Any = tree
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        part = str(part) if isinstance(node, dict) else part  # a class may be called 5
        _refuse_unknown(node, part, path, depth, root)
        if last and part == "name" and depth > 0 and node.get("name") != value:
            kept = {key: node[key] for key in BESIDE if key in node}
            node.clear()
            node.update(name=value, **kept)
        elif last:
            _put(node, part, value)
        else:
            inner = dict(enumerate(node) if isinstance(node, list) else node).get(part)
            if inner is None:
                inner = [] if isinstance(path[depth + 1], int) else {}
                _put(node, part, inner)
            node = inner


def _put(node: Any, part: str | int, value: Any) -> None:
    if isinstance(node, list) and part == len(node):
        node.append(value)
    else:
        node[part] = value


def _refuse_unknown(node: Any, part: str | int, path: Path, depth: int, root: Path) -> None:
    """The step `part`, number `depth` of `path`, must be possible at `node`. Knobs of a component are left to the
    component to judge. A key need not be there: some are dumped only where they say something."""
    here = dotted(path[:depth])
    if isinstance(node, list):
        if not isinstance(part, int) or part > len(node):
            raise UserError(f"unknown path {dotted(path)!r}: {here} is a list of {len(node)}, count from 0")
    elif not isinstance(node, dict):
        raise UserError(f"unknown path {dotted(path)!r}: {here} is a value, nothing stands below it")
    elif node and "name" not in node and part not in node and part not in (known := _known(root + path[:depth], part)):
        raise UserError(f"unknown path {shown(dotted(path))}: {did_you_mean(str(part), {*node, *known})}")


@cache
def skeleton() -> dict[str, Any]:
    """The JSON schema of a pipeline, where a component is `{x-family: …}` and its members are not spelt out."""
    return Pipeline.model_json_schema()


def family_at(path: Path) -> Registry[Any] | None:
    """The family whose members may stand at `path` of an experiment."""
    node: Mapping[str, Any] = skeleton()["$defs"]["Experiment"]
    for part in path:
        node = _step(node, part)
    return next((FAMILIES[option["x-family"]] for option in _options(node) if "x-family" in option), None)


def known_keys(data: Any, path: Path, root: Path = ()) -> list[str]:
    """The keys that a mapping at `path` of `data` may have; `data` is a pipeline, or what stands at its path `root`."""
    node: Mapping[str, Any] = skeleton()
    for part in root:
        node = _step(node, part)
    for part in path:
        node, data = _step(node, part), data[part]
    return _keys(node, data)


def _known(path: Path, part: str | int) -> list[str]:
    """The keys that a section at `path` of a pipeline may have; `part` too where any key may stand."""
    node: Mapping[str, Any] = skeleton()
    for step in path:
        node = _step(node, step)
    return [str(part)] if any(map(_free, _options(node))) else _keys(node, None)


def _free(option: Mapping[str, Any]) -> Mapping[str, Any]:
    """What stands under the keys of a mapping that may have any, as search.constraints; empty for a section."""
    values = [option.get("additionalProperties"), *option.get("patternProperties", {}).values()]
    return next((value for value in values if isinstance(value, Mapping)), {})


def _options(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The node itself or what it stands for: `$ref` followed, alternatives listed."""
    if "$ref" in node:
        return [skeleton()["$defs"][node["$ref"].rsplit("/", 1)[1]]]
    return [option for one in node["anyOf"] for option in _options(one)] if "anyOf" in node else [node]


def _step(node: Mapping[str, Any], part: str | int) -> Mapping[str, Any]:
    for option in _options(node):
        if isinstance(part, int) and "items" in option:
            return option["items"]  # type: ignore[no-any-return]
        if part in option.get("properties", {}):
            return option["properties"][part]  # type: ignore[no-any-return]
        if free := _free(option):
            return free
    return {}


def _keys(node: Mapping[str, Any], data: Any) -> list[str]:
    keys: list[str] = []
    for option in _options(node):
        keys += option.get("properties", {})
        if "x-family" in option and isinstance(data, Mapping):
            member = FAMILIES[option["x-family"]].get(data["name"])
            keys += ["name", *member.model_fields, *option.get("x-beside", {})]
    return keys
