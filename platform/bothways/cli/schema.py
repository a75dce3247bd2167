"""`bothways schema`: the JSON schema of the files, with which an editor completes and checks while one types."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from bothways.config.shape import skeleton
from bothways.registry import FAMILIES, Component


class Kind(StrEnum):
    """The two kinds of files."""

    pipeline = "pipeline"
    space = "space"


def schema(kind: Annotated[Kind, typer.Argument(help="Which file.")] = Kind.pipeline) -> None:
    """Print the JSON schema of a pipeline or a space file."""
    found = pipeline_schema() if kind is Kind.pipeline else space_schema()
    sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def pipeline_schema() -> dict[str, Any]:
    """A pipeline's schema in which every component is one of the members of its family."""
    members: dict[str, Any] = {}
    found = _expanded(skeleton(), members)
    found["$defs"] |= members
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _expanded(node: Any, definitions: dict[str, Any]) -> Any:
    """`node` with every `x-family` replaced by its members, which are added to `definitions`."""
    if isinstance(node, list):
        return [_expanded(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "x-family" in node:
        return {key: node[key] for key in ("default",) if key in node} | _members(node, definitions)
    return {key: _expanded(value, definitions) for key, value in node.items()}


def _members(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    registry, beside = FAMILIES[node["x-family"]], node.get("x-beside", {})
    names = registry.names()
    refs = []
    for name in names:
        key = f"{registry.family}-{name}" + ("-in-list" if beside else "")
        if key not in definitions:
            definitions[key] = _mapping(name, registry.get(name), beside, definitions)
        refs.append({"$ref": f"#/$defs/{key}"})
    return {"oneOf": [{"enum": names}, *refs]}


def _mapping(name: str, member: type[Component], beside: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    own = member.model_json_schema()
    definitions |= own.get("$defs", {})
    return {
        "title": name,
        "description": f"{member.term}. {member.source}".strip(". "),
        "type": "object",
        "properties": {"name": {"const": name}, **own.get("properties", {}), **beside},
        "required": ["name", *own.get("required", [])],
        "additionalProperties": False,
    }


def space_schema() -> dict[str, Any]:
    """A space file's schema. Whether a path leads anywhere is for `bothways check` to say."""
    scalar = {"type": ["string", "number", "boolean", "null"]}
    number, whole = {"type": "number"}, {"type": "integer"}
    point = {"type": "object", "additionalProperties": scalar}
    when = {"type": "object", "additionalProperties": {"oneOf": [scalar, {"type": "array", "items": scalar}]}}
    domains = {
        "choices": {"type": "array", "items": scalar, "minItems": 1},
        **{kind: {"type": "array", "items": number, "minItems": 2, "maxItems": 2} for kind in ("float", "log")},
        **{kind: {"type": "array", "items": whole, "minItems": 2, "maxItems": 2} for kind in ("int", "int_log")},
    }
    mapping = {
        "type": "object",
        "properties": {**domains, "when": when},
        "additionalProperties": False,
        "maxProperties": 2,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Space",
        "type": "object",
        "properties": {
            "description": {"type": "string"},
            "control": {**point, "description": "The control arm: no transform, plain cross-entropy. Runs first."},
            "start": {"type": "array", "items": point, "description": "Points that run next."},
        },
        "patternProperties": {r"^[a-z_]+(\.[a-z0-9_]+)+$": {"oneOf": [domains["choices"], mapping]}},
        "additionalProperties": False,
    }
