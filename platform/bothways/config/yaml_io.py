"""Strict YAML: files become typed configs, mistakes become `file:line: path: message`.

YAML 1.2 scalars (`1e-5` is a number, `no` is text), one document, no anchors, aliases, tags or directives, no key
twice, at most 1 MiB and 32 levels. PyYAML's own loader will not do: it takes a repeated key without a
word, `1e-5` as text and `no` as false, and 324 bytes of aliases grow in it until the process dies.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from bothways.config import Experiment, Pipeline
from bothways.config.complaints import complaints, mistyped
from bothways.config.shape import Path, assign, parts, shown
from bothways.errors import UserError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

M = TypeVar("M", bound=BaseModel)

_Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser where PyYAML was built with it: 15x faster


@dataclass(frozen=True, kw_only=True)
class Document:
    """What a file holds: lists, mappings with text keys, and scalars. `lines`: 1-based line of every node by path."""

    name: str
    text: str
    data: Any
    lines: Mapping[Path, int]

    def where(self, path: Path) -> str:
        """`file:line` of the node at `path`, or of the nearest node above it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines.get(path, 1)}"


def read(path: str | FilePath) -> Document:
    """Read a YAML file. Raises `UserError`: one line with file, line and the way out."""
    file = FilePath(path)
    name = shown(str(path), 200)[1:-1]
    try:
        if not file.exists():
            raise UserError(f"{name}: no such file")
        if not file.is_file():
            raise UserError(f"{name}: is not a file")
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = error.strerror if isinstance(error, OSError) else "not a usable path"
        raise UserError(f"{name}: cannot be read: {reason}") from None
    if len(raw) > MAX_BYTES:
        raise UserError(f"{name}: is larger than {MAX_BYTES >> 20} MiB, which no config needs")
    return parse(_text(raw, name), name)


def parse(text: str, name: str) -> Document:
    """Read YAML from `text`; `name` is what messages call it. Raises `UserError`."""
    unprintable = re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", text)
    if unprintable:
        line, code = text.count("\n", 0, unprintable.start()) + 1, ord(unprintable[0])
        raise UserError(f"{name}:{line}: the character U+{code:04X} is not allowed in a text file: remove it")
    tab = re.search(r"^ *\t[ \t]*(?=[^\s#])", text, re.MULTILINE)
    if tab:
        line = text.count("\n", 0, tab.start()) + 1
        raise UserError(f"{name}:{line}: the line is indented with a tab: use spaces")
    return _Builder(name).document(text)


def dump(data: Any) -> str:
    """YAML that `parse` reads back to the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def load_pipeline(
    path: str | FilePath, overrides: Sequence[str] = (), experiment: str | FilePath | None = None
) -> Pipeline:
    """A pipeline file, then `key=value` overrides on dotted paths such as `experiment.optim.lr=1e-4`.

    Values are read by the file's own scalar rules. `experiment`: a file with an experiment that takes the place of the
    pipeline's, as a sweep writes it (`best.yaml`). Raises `UserError`, one line for each problem.
    """
    document = read(path)
    pipeline = _validate(document)
    if experiment is not None:
        found = _experiment(read(experiment))
        spec = pipeline.model_dump(mode="json") | {"experiment": found.spec()}
        pipeline = checked(Pipeline, spec, lambda path: f"{experiment}, in place of the experiment of {document.name}")
    if not overrides:
        return pipeline
    spec = pipeline.model_dump(mode="json")
    changed: dict[Path, str] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        place = f"override {shown(override)}"
        if not equals:
            raise UserError(f"{place}: write it as key=value, for example experiment.optim.lr=1e-4")
        value = parse(text, place).data
        try:
            target = parts(key.strip())
            assign(spec, target, value)
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
        changed[target] = place

    def where(path: Path) -> str:
        near = [place for target, place in changed.items() if path[: len(target)] == target[: len(path)]]
        return near[-1] if near else "overrides"

    return checked(Pipeline, spec, where)


def space_file(pipeline_file: str | FilePath, pipeline: Pipeline) -> FilePath | None:
    """The space file a pipeline names, found from the pipeline file's folder; None when it does not search."""
    if pipeline.search is None:
        return None
    return FilePath(os.path.normpath(FilePath(pipeline_file).parent / pipeline.search.space))


def _experiment(document: Document) -> Experiment:
    data = document.data
    if isinstance(data, dict) and "experiment" in data:
        return _validate(document).experiment
    if not isinstance(data, dict) or "data" not in data:
        raise UserError(f"{document.name}:1: no experiment, such as the best.yaml of a sweep: it has no `data:`")
    return checked(Experiment, data, document.where, ("experiment",))


def _validate(document: Document) -> Pipeline:
    if document.data is None:
        raise UserError(f"{document.name}:1: the file is empty; a pipeline has name, experiment, search, run")
    return checked(Pipeline, document.data, document.where)


def checked(model: type[M], data: Any, where: Callable[[Path], str], root: Path = ()) -> M:
    """`data` as a `model`, which is a pipeline or what stands at the path `root` of one. `where`: the place of a path.

    Raises `UserError`, one line for each problem.
    """
    try:
        config = model.model_validate(data)
    except ValidationError as error:
        raise UserError("\n".join(complaints(error, data, where, root))) from None
    wrong = list(mistyped(data, config.model_dump(mode="json"), where))
    if wrong:
        raise UserError("\n".join(wrong))
    return config


def _text(raw: bytes, name: str) -> str:
    if raw.startswith(b"\xef\xbb\xbf"):
        raise UserError(f"{name}:1: starts with a byte order mark: save it as UTF-8 without BOM")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{name}:{line}: is not UTF-8 (byte 0x{raw[error.start]:02x}): save it as UTF-8") from None


_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def _scalar(text: str) -> Any:
    """An unquoted scalar by YAML 1.2's core schema. Raises `ValueError` for an integer beyond 64 bits."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        number = int(text, 0 if text[:2] in ("0o", "0x") else 10) if len(text) < 30 else 1 << 64
        if not -(1 << 63) <= number < 1 << 63:
            raise ValueError(f"the number {shown(text, 24)} does not fit into 64 bits")
        return number
    return (
        float(text.replace(".i", "i").replace(".I", "I").replace(".n", "n").replace(".N", "N"))
        if _FLOAT.fullmatch(text)
        else text
    )


class _Builder:
    """Data and lines from PyYAML's events; recursion is bounded by MAX_DEPTH."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Path, int] = {}

    def fail(self, line: int, message: str) -> UserError:
        return UserError(f"{self.name}:{line}: {message}")

    def document(self, text: str) -> Document:
        events: Iterator[Any] = yaml.parse(text, Loader=_Parser)
        data: Any = None
        documents = 0
        try:
            for event in events:
                if isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        raise self.fail(_line(event), "a second document begins here ('---'): one file holds one")
                    if event.version or event.tags:
                        raise self.fail(1, "directives (%YAML, %TAG) are not accepted: remove the line")
                elif isinstance(event, yaml.NodeEvent):
                    data = self.node(event, events, ())
        except yaml.MarkedYAMLError as error:
            raise self.syntax(error) from None
        except yaml.YAMLError as error:
            raise self.fail(1, f"not valid YAML: {getattr(error, 'reason', 'unreadable')}") from None
        return Document(name=self.name, text=text, data=data, lines=self.lines)

    def syntax(self, error: yaml.MarkedYAMLError) -> UserError:
        problem, context = error.problem or "", error.context or ""
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        if "mapping values are not allowed" in problem:
            return self.fail(line, "a second ':' on the line, or wrong indentation: quote text that holds ': '")
        if "flow" in context or "quoted" in context:
            line = error.context_mark.line + 1 if error.context_mark else line
            what = "quote" if "quoted" in context else "bracket"
            return self.fail(line, f"a {what} that opens on this line is not closed")
        if "cannot start any token" in problem:
            return self.fail(line, "a value cannot begin with '@', '`', '%' or a tab: quote it")
        return self.fail(line, f"not valid YAML, check the indentation ({problem})")

    def node(self, event: Any, events: Iterator[Any], path: Path) -> Any:
        line = _line(event)
        self.lines.setdefault(path, line)
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            raise self.fail(line, "anchors and aliases (&, *) are not accepted: write the value out, or quote the text")
        if event.tag:
            raise self.fail(line, f"tags are not accepted: remove {shown(event.tag)}")
        if isinstance(event, yaml.ScalarEvent):
            if event.style:  # quoted or block: text as it stands
                return event.value
            try:
                return _scalar(event.value)
            except ValueError as error:
                raise self.fail(line, str(error)) from None
        if len(path) >= MAX_DEPTH:
            raise self.fail(line, f"nested deeper than {MAX_DEPTH} levels")
        return self.sequence(events, path) if isinstance(event, yaml.SequenceStartEvent) else self.mapping(events, path)

    def sequence(self, events: Iterator[Any], path: Path) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(self.node(event, events, (*path, len(items))))
        return items

    def mapping(self, events: Iterator[Any], path: Path) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent) or event.anchor or event.tag:
                raise self.fail(line, "a key is a plain word: no list, mapping, anchor, alias or tag")
            key = event.value
            if key in items:
                first = self.lines[(*path, key)]
                raise self.fail(line, f"the key {shown(key)} is already on line {first}: keep one of them")
            self.lines[(*path, key)] = line
            items[key] = self.node(next(events), events, (*path, key))
        return items


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Quoted where plain text would be read as something else under YAML 1.2."""
    try:
        plain = isinstance(_scalar(text), str)
    except ValueError:
        plain = False
    style = '"' if re.search(r"[\t\n\r\x85\u2028\u2029]", text) else None if plain else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
