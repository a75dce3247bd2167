"""`bothways list`: every registered method with its knobs, read from the code itself.

As Markdown it is a page, docs/methods.md, with what transforms cost (`costs.yaml`, which the benchmark writes).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from bothways.cli.tables import Format, show
from bothways.config.domains import SampleMixing
from bothways.config.yaml_io import read
from bothways.errors import UserError, did_you_mean
from bothways.registry import FAMILIES, Choices, Component, Range

COSTS = Path(__file__).with_name("costs.yaml")
TABLE = ("family", "name", "term", "knobs", "languages", "source")
PAGE: Mapping[str, tuple[str, ...]] = {
    "transform": ("name", "term", "about", "knobs", "languages", "applies", "neutral", "rows/s", "source"),
    "setting": ("name", "term", "about", "knobs", "neutral", "source"),
    "objective": ("name", "term", "about", "knobs", "neutral", "passes", "source"),
}
ABOUT = """\
# Methods

Every registered method, as the code has it. This page is written by `bothways list --format md`: change the code, then
run `bothways list --format md > docs/methods.md`.

A knob stands with its type, the values it accepts, its default, and where a search looks for it if the space names no
range. *neutral*: the knobs with which a method does nothing, to the byte or the last bit. *rows/s*: texts a second of
one core, from text to text with negators and numbers protected, of English sentences of {words} words and of Chinese
reviews of {characters} characters, at p = 0.1 where there is a p and at the defaults else ({machine}). Where a language
model writes, it is SmolLM2-135M (`lm_sampling`), one of MiniLM-L6's size at p = 0.15 (`contextual_substitution`), or of
T5-small's, once for each of two ways (`back_translation`), and its batch 8 rows. *passes*: of the model in a step,
forward + backward, at the defaults.
"""


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
    if not chosen:
        members.append(_describe("setting", SampleMixing))
    if form is Format.json:
        show(members, form)
    elif form is Format.md:
        _page(list(map(_cells, members)), whole=not chosen)
    else:
        show([{name: member[name] for name in TABLE} for member in map(_cells, members)], form)


def _describe(family: str, member: type[Component]) -> dict[str, Any]:
    described = {
        "family": family,
        "name": member.name,
        "term": member.term,
        "about": " ".join((member.__doc__ or "").split()),
        "knobs": knobs(member),
        "languages": list(getattr(member, "languages", ())),
        "neutral": dict(member.neutral),
        "source": member.source,
    }
    if family == "transform":
        transform: Any = member
        described |= {"train_only": transform.train_only, "rows/s": _rates().get(member.name, {})}
    if family == "objective":
        objective: Any = member()
        described["passes"] = list(objective.passes)
    return described


@cache
def _rates() -> dict[str, dict[str, float]]:
    """Rows a second by transform and language."""
    costs = _costs()
    return {**costs["transforms"], **costs["models"]}


def _costs() -> Any:
    return read(COSTS).data


def _cells(member: Mapping[str, Any]) -> dict[str, Any]:
    """A member as text, a cell each."""
    neutral = ", ".join(f"{knob}={_plain(value)}" for knob, value in member["neutral"].items())
    return {
        **member,
        "knobs": "\n".join(map(_line, member["knobs"])),
        "languages": " ".join(member["languages"]),
        "neutral": neutral,
        "applies": "in training" if member.get("train_only") else "always",
        "rows/s": "\n".join(f"{language} {rate:,g}" for language, rate in member.get("rows/s", {}).items()),
        "passes": " + ".join(map(str, member.get("passes", ()))),
    }


def _page(members: list[dict[str, Any]], whole: bool) -> None:
    """A table for each family; what only some of them have a column for stands on their tables only."""
    if whole:
        sys.stdout.write(ABOUT.format(**_costs()))
    for family in dict.fromkeys(member["family"] for member in members):
        if whole:
            sys.stdout.write(f"\n## {family.capitalize()}s\n\n")
        columns = PAGE.get(family, ("name", "term", "about", "knobs", "source"))
        show([member for member in members if member["family"] == family], Format.md, columns)


def knobs(member: type[Component]) -> list[dict[str, Any]]:
    """name, type, range, default and search range of each knob of a component."""
    schema = member.model_json_schema()
    return [
        {
            "name": name,
            "type": _type(schema["properties"][name]),
            "range": _range(schema["properties"][name]),
            "default": None if field.is_required() else _default(field, schema["properties"][name]),
            "search": next((_search(m) for m in field.metadata if isinstance(m, Range | Choices)), ""),
        }
        for name, field in member.model_fields.items()
    ]


def _default(field: FieldInfo, schema: dict[str, Any]) -> Any:
    return schema["default"] if "default" in schema else field.get_default(call_default_factory=True)


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
