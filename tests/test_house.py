"""Conventions that a test keeps: small files, true documents, one file a method, a frozen command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from bothways.registry import FAMILIES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "platform" / "bothways"
README = (ROOT / "README.md").read_text("utf-8")
BUILT = {"runs", "build", "dist", ".git"}  # not part of the project, or made by it


def python_files() -> list[Path]:
    return [file for folder in ("platform", "tests", "cluster") for file in sorted((ROOT / folder).rglob("*.py"))]


def block(language: str, after: str) -> str:
    """The first fenced block of README in `language` below the heading `after`."""
    found = re.search(rf"^## {re.escape(after)}\n.*?^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert found, f"README has no {language} block below {after!r}"
    return found[1]


def tree() -> dict[str, str]:
    """README's tree as path → comment. Two spaces a level; folders end in a slash."""
    listed: dict[str, str] = {}
    folders: list[str] = []
    for line in block("text", "The tree").splitlines():
        entry = re.fullmatch(r"((?:  )*)(\S+)(?:  +(.+))?", line)
        assert entry, f"cannot read the line {line!r}"
        depth = len(entry[1]) // 2
        folders[depth:] = [entry[2]]
        listed["".join(folders)] = entry[3] or ""
    return listed


def test_platform_is_a_plain_folder() -> None:
    # With an __init__.py it would shadow the standard library's `platform`, and Python itself would break.
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_no_file_is_long() -> None:
    assert {
        str(file.relative_to(ROOT)) for file in python_files() if file.read_text("utf-8").count("\n") > 400
    } == set()


def test_no_function_takes_many_parameters() -> None:
    def functions() -> Iterator[tuple[str, int]]:
        for file in python_files():
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                    yield (
                        f"{file.relative_to(ROOT)}:{node.lineno}",
                        len([a for a in given if a.arg not in {"self", "cls"}]),
                    )

    assert {place: count for place, count in functions() if count > 9} == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_of_a_family_registers_its_own_name_and_no_other(family: str) -> None:
    registry = FAMILIES[family]
    assert registry.names()
    for name in registry.names():
        member = registry.get(name)
        assert (member.name, member.__module__.split(".")[-1]) == (name, name)
    # All files are imported by now: had one of them registered a second name, it would be listed.
    assert sorted(registry._members) == registry.names()


def test_the_command_line_has_these_commands_and_no_others() -> None:
    from bothways.cli import COMMANDS

    assert list(COMMANDS) == [
        "tune",
        "train",
        "compare",
        "prepare",
        "few-shot",
        "check",
        "predict",
        "loop",
        "suggest-labels",
        "ensemble",
        "policy",
        "list",
        "assets",
        "lexicon",
        "space",
        "schema",
        "ui",
    ]


def test_make_has_these_targets_each_with_a_line_of_help() -> None:
    lines = (ROOT / "Makefile").read_text("utf-8").splitlines()
    targets = [found[1] for line in lines if (found := re.match(r"([a-z-]+):.*## \S", line))]
    phony = next(line for line in lines if line.startswith(".PHONY:"))
    assert phony == ".PHONY: setup tune test check ui cluster-up submit cluster-down bench clean help"
    assert targets == phony.split()[1:]


def test_the_tree_in_readme_lists_what_there_is() -> None:
    listed = tree()
    assert [path for path in listed if not (ROOT / path).exists()] == []
    top = {path.split("/")[0] for path in listed}
    there = {entry.name for entry in ROOT.iterdir()} - BUILT
    hidden = {name for name in there if name.startswith(".") and name != ".ci"}
    assert sorted(there - hidden - top) == []


def test_the_tree_in_readme_explains_every_file() -> None:
    listed = tree()
    members = {PACKAGE / "tasks"}
    members |= {folder for side in ("input_side", "output_side", "joint") for folder in (PACKAGE / side).glob("*/")}
    modules = [f for f in PACKAGE.rglob("*.py") if f.stem != "__init__" and f.parent not in members]
    files = [
        f for folder in ("pipelines", "search_spaces", "cluster") for f in (ROOT / folder).iterdir() if f.is_file()
    ]
    missing = [str(f.relative_to(ROOT)) for f in sorted(modules + files) if not listed.get(str(f.relative_to(ROOT)))]
    assert missing == []
    assert [path for path, comment in listed.items() if not comment] == []


def test_the_table_in_readme_names_every_method() -> None:
    table = re.search(r"^## Methods\n(.*?)^## ", README, re.DOTALL | re.MULTILINE)
    assert table
    named = set(re.findall(r"^\| `(\w+)` \|", table[1], re.MULTILINE))
    assert named == {name for registry in FAMILIES.values() for name in registry.names()}


def test_the_pipeline_in_readme_is_a_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bothways.cli import run

    (tmp_path / "search_spaces").symlink_to(ROOT / "search_spaces")
    (tmp_path / "pipelines").mkdir()
    file = tmp_path / "pipelines" / "mine.yaml"
    file.write_text(block("yaml", "Your own data"), "utf-8")
    (tmp_path / "reviews.csv").write_text("review,stars\ngood,1\nbad,0\n", "utf-8")
    assert run(["check", str(file)]) == 0, capsys.readouterr().err


def test_the_links_in_the_documents_lead_somewhere() -> None:
    broken = []
    for document in [*ROOT.glob("*.md"), *ROOT.glob("cluster/*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text("utf-8")):
            if "://" not in target and not (document.parent / target).exists():
                broken.append(f"{document.name}: {target}")
    assert broken == []


def test_the_constraints_are_plain_versions_that_the_project_accepts() -> None:
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pinned = {}
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        name, _, version = line.partition("==")
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line), f"{line!r} is not NAME==VERSION without a local suffix"
        pinned[canonicalize_name(name)] = version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    assert len(wanted) > 15
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement
