"""pydantic's errors in plain words: one line for each problem, `place: path: what is wrong, the way out`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from bothways.config.shape import Path, dotted, find, known_keys, shown
from bothways.errors import UserError, did_you_mean

MAX_LINES = 5

_UNKNOWN, _MISSING, _SHORT = "extra_forbidden", "missing", "too_short"  # pydantic's words

_EXPECTED = {
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
    "none_required": "null",
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
    "string_pattern_mismatch": "1 to 64 characters of a-z 0-9 . _ - that begin with a letter or digit",
}


def complaints(error: ValidationError, data: Any, where: Callable[[Path], str], root: Path = ()) -> list[str]:
    """One line for each problem, at most MAX_LINES. `data` is what was validated; `where` names the place of a path.

    `root`: the path of `data` in a pipeline, when it is only a part of one.
    """
    expected: dict[Path, list[str]] = {}
    found: dict[Path, tuple[str, str]] = {}  # path → kind of error, sentence
    for raw, item in _flat(error):
        path = _written(data, raw, may_lack=item["type"] == _MISSING)
        if item["type"] in _EXPECTED:
            limits = {k: f"{v:g}" if isinstance(v, float) else v for k, v in item.get("ctx", {}).items()}
            expected.setdefault(path, []).append(_EXPECTED[item["type"]].format(**limits))
        else:
            found.setdefault(path, (item["type"], _sentence(item, data, path, root)))
    for path, wanted in expected.items():
        found.setdefault(path, ("mismatch", _mismatch(list(dict.fromkeys(wanted)), find(data, path))))
    # A mistyped key is the reason why the right one is missing: say the first only.
    misnamed = {path[:-1] for path, (kind, _) in found.items() if kind == _UNKNOWN}
    found = {path: f for path, f in found.items() if f[0] != _MISSING or path[:-1] not in misnamed}
    # Items that are refused are also missed by their list: say why they are refused only.
    holders = {path[:depth] for path in found for depth in range(len(path))}
    found = {path: f for path, f in found.items() if f[0] != _SHORT or path not in holders}
    lines = []
    for path, (kind, sentence) in sorted(found.items(), key=lambda entry: entry[1][0] == _MISSING):
        holder = path[:-1] if kind in (_UNKNOWN, _MISSING) else path
        lines.append(": ".join(filter(None, (where(path), dotted(holder), sentence))))
    return lines if len(lines) <= MAX_LINES else [*lines[:MAX_LINES], f"… and {len(lines) - MAX_LINES} more problems"]


def mistyped(read: Any, spec: Any, where: Callable[[Path], str], path: Path = ()) -> Iterator[str]:
    """What pydantic let pass because it could be converted: text or true/false where a number is meant.

    `read`: the data as written; `spec`: the same data after validation.
    """
    if isinstance(read, dict) and isinstance(spec, dict):
        for key in read.keys() & spec.keys():
            yield from mistyped(read[key], spec[key], where, (*path, key))
    elif isinstance(read, list) and isinstance(spec, list):
        for index, pair in enumerate(zip(read, spec, strict=False)):
            yield from mistyped(*pair, where, (*path, index))
    elif isinstance(spec, int | float) and (isinstance(read, str) or isinstance(read, bool) != isinstance(spec, bool)):
        wanted = "true or false" if isinstance(spec, bool) else "a number"
        yield f"{where(path)}: {dotted(path)}: must be {wanted}, not {shown(read)}"


def _flat(error: ValidationError, prefix: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every error with its path; a component's own errors come wrapped in its holder's and are taken out."""
    for item in error.errors(include_url=False):
        inner = item.get("ctx", {}).get("error")
        if isinstance(inner, ValidationError):
            yield from _flat(inner, prefix + item["loc"])
        else:
            yield prefix + item["loc"], item


def _written(data: Any, path: Path, *, may_lack: bool) -> Path:
    """The path as the file writes it: without pydantic's union branches and the slots of flat mappings.

    `may_lack`: the last part names a key that the data has not.
    """
    kept: Path = ()
    for position, part in enumerate(path):
        try:
            data = find(data, (part,))
        except KeyError:
            if not (may_lack and position == len(path) - 1):
                continue
        kept = (*kept, part)
    return kept


def _sentence(item: Any, data: Any, path: Path, root: Path) -> str:
    if item["type"] == _UNKNOWN:
        keys = known_keys(data, path[:-1], root)
        return f"unknown key {shown(path[-1])}: {did_you_mean(str(path[-1]), keys)}"
    if item["type"] == _MISSING:
        return f"{shown(path[-1])} is missing"
    if item["type"] == _SHORT:
        return f"has {item['ctx']['actual_length']} entries, and must have at least {item['ctx']['min_length']}"
    inner = item.get("ctx", {}).get("error")
    return str(inner) if isinstance(inner, UserError) else str(item["msg"]).removeprefix("Value error, ")


def _mismatch(wanted: list[str], value: Any) -> str:
    if "a number" in wanted and "a whole number" in wanted:
        wanted.remove("a whole number")
    hint = ""
    if isinstance(value, str):
        words = [word.strip("'") for one in wanted for word in one.replace(" or ", ", ").split(", ")]
        near = get_close_matches(value, words, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
    return f"must be {' or '.join(wanted)}, not {shown(value)}{hint}"
