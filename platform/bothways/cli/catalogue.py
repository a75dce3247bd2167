"""`bothways list`: every registered method with its knobs, read from the code itself."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from bothways.cli.tables import Format, show
from bothways.errors import UserError, did_you_mean
from bothways.registry import FAMILIES, Choices, Component, Range


def catalogue(
    family: Annotated[str | None, typer.Argument(help=f"One of {', '.join(FAMILIES)}; all without it.")] = None,
    form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.table,
) -> None:
    """List the methods: name, term, knobs with type, range, default and search range, languages, source."""
    chosen = (family or "").rstrip("s")
    if family and chosen not in FAMILIES:
        raise UserError(f"unknown family {family!r}: {did_you_mean(family, FAMILIES)}")
    members = [
        _describe(registry.family, registry.get(name))
        for registry in FAMILIES.values()
        if chosen in ("", registry.family)
        for name in registry.names()
    ]
    if form is not Format.json:  # one cell each
        members = [
            m | {"knobs": "\n".join(map(_line, m["knobs"])), "languages": " ".join(m["languages"])} for m in members
        ]
    show(members, form)


def _describe(family: str, member: type[Component]) -> dict[str, Any]:
    return {
        "family": family,
        "name": member.name,
        "term": member.term,
        "knobs": knobs(member),
        "languages": list(getattr(member, "languages", ())),
        "source": member.source,
    }


def knobs(member: type[Component]) -> list[dict[str, Any]]:
    """name, type, range, default and search range of each knob of a component."""
    schema = member.model_json_schema()
    return [
        {
            "name": name,
            "type": _type(schema["properties"][name]),
            "range": _range(schema["properties"][name]),
            "default": None if field.is_required() else schema["properties"][name].get("default"),
            "search": next((_search(m) for m in field.metadata if isinstance(m, Range | Choices)), ""),
        }
        for name, field in member.model_fields.items()
    ]


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " | ".join(_type(option) for option in schema["anyOf"])
    kind = str(schema.get("const", schema.get("type", "any")))
    items = schema.get("items", {})
    return (
        f"list of {_type(items)}" if kind == "array" and items else {"array": "list", "string": "text"}.get(kind, kind)
    )


def _range(schema: dict[str, Any]) -> str:
    for option in schema.get("anyOf", ()):
        if _range(option):
            return _range(option)
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"{low:g}…{high:g}"
    bounds = [
        f"≥{low:g}" if low is not None else f">{above:g}" if above is not None else "",
        f"≤{high:g}" if high is not None else f"<{below:g}" if below is not None else "",
    ]
    return " ".join(filter(None, bounds))


def _search(found: Range | Choices) -> str:
    if isinstance(found, Choices):
        return ", ".join(_plain(v) for v in found.values)
    return f"{found.low:g}…{found.high:g}{' log' if found.log else ''}"


def _line(knob: dict[str, Any]) -> str:
    bounds = f" {knob['range']}" if knob["range"] else ""
    search = f"; search {knob['search']}" if knob["search"] else ""
    return f"{knob['name']}: {knob['type']}{bounds} = {_plain(knob['default'])}{search}"


def _plain(value: Any) -> str:
    """A value as a file writes it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return value if isinstance(value, str) else json.dumps(value)
