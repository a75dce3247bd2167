"""The command line: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bothways import cli
from bothways.cli import catalogue, schema
from bothways.cli.tables import Format, show
from bothways.config import yaml_io
from bothways.loop import is_loop
from bothways.registry import FAMILIES

ROOT = Path(__file__).parents[2]
PIPELINES = sorted((ROOT / "pipelines").glob("*.yaml"))
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))

PIPELINE = """\
name: demo
experiment:
  data: {source: rows.csv}
  input: {augment: {n_aug: 1, policy: [[{name: random_swap, p: 0.1}]]}}
  optim: {lr: 1e-5, steps: 10}
"""


def call(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, list[str]]:
    code = cli.run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err.splitlines()


BROKEN = {
    "an unknown key": (PIPELINE.replace("lr:", "learning_rate:"), r"p\.yaml:5: .*unknown key 'learning_rate'"),
    "a key twice": (PIPELINE.replace("steps: 10", "lr: 1e-4"), r"p\.yaml:5: the key 'lr' is already on line 5"),
    "text for a number": (PIPELINE.replace("1e-5", "abc"), r"p\.yaml:5: .*lr: must be a number, not 'abc'"),
    "an alias bomb": ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", r"p\.yaml:1: anchors and aliases"),
    "a tab": (PIPELINE.replace("  optim", "\toptim"), r"p\.yaml:5: the line is indented with a tab"),
    "a wrong type": (PIPELINE.replace("{source: rows.csv}", "rows.csv"), r"p\.yaml:3: .*data: must be a mapping"),
    "an unknown operation": (PIPELINE.replace("_swap", "_swop"), r"p\.yaml:4: .*did you mean 'random_swap'\?"),
    "two documents": (PIPELINE + "---\n" + PIPELINE, r"p\.yaml:6: a second document"),
    "two roots": (PIPELINE + "- name: other\n", r"p\.yaml:6: not valid YAML"),
    "a condition on an unknown path": (
        "optim.lr: {log: [1e-5, 1e-3], when: {optim.step: 5}}\noptim.steps: [5, 200]\n",
        r"p\.yaml:1: optim\.lr: when 'optim\.step'.*did you mean 'optim\.steps'\?",
    ),
    "low above high": ("optim.lr: {log: [1e-3, 1e-5]}\n", r"p\.yaml:1: optim\.lr: low 0\.001 is not below high 1e-05"),
    "an executable tag": ("name: !!python/object/apply:os.system [id]\n", r"p\.yaml:1: tags are not accepted"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_one_line_and_exit_code_2(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, line = BROKEN[what]
    file = tmp_path / "p.yaml"
    file.write_text(text, encoding="utf-8")
    code, out, err = call(capsys, "check", file)
    assert (code, out) == (2, "")
    assert len(err) == 1
    assert err[0].startswith("error: ")
    assert re.search(line, err[0]), err[0]


def test_a_file_in_scientific_notation_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.yaml").write_text(PIPELINE)
    assert call(capsys, "check", tmp_path / "p.yaml")[0] == 0


def test_every_shipped_file_checks(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "check", *PIPELINES, *SPACES)
    assert (code, err) == (0, [])
    assert [line.split(":")[0] for line in out.splitlines()] == [f"ok  {file}" for file in [*PIPELINES, *SPACES]]
    assert len(PIPELINES) >= 2
    assert len(SPACES) >= 3


def test_all_files_are_checked_even_if_the_first_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "check", "missing.yaml", SPACES[0])
    assert (code, len(out.splitlines()), len(err)) == (2, 1, 1)


def test_a_pipelines_space_is_checked_against_its_experiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.yaml").write_text(PIPELINE + "search: {space: s.yaml}\n")
    (tmp_path / "s.yaml").write_text("optim.steps: [5, 10]\n")
    _, _, err = call(capsys, "check", tmp_path / "p.yaml")
    assert "s.yaml:1: the control arm changes the text with random_swap" in err[0]


def test_help_and_checking_import_nothing_heavy() -> None:
    """Which is what makes them quick; how quick is `tests/benchmarks/cli.py`'s to say."""
    program = (
        "import sys\n"
        "from bothways.cli import run\n"
        "assert run(['--help']) == 0 and len(sys.modules) < 250, len(sys.modules)\n"
        f"assert run(['check', {str(PIPELINES[0])!r}]) == 0\n"
        "heavy = {'torch', 'transformers', 'ray', 'mlflow', 'optuna', 'pandas', 'pyarrow', 'datasets', 'sklearn'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_driver_of_a_sweep_imports_no_model() -> None:
    """Its lanes do, in processes of their own: here it would be seconds before they start."""
    heavy = "{'torch', 'transformers', 'mlflow', 'scipy.stats', 'sklearn'}"
    program = f"import sys, bothways.edges.sweep\nassert not {heavy} & sys.modules.keys(), {heavy} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_program_exits_with_its_code_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("name: ../../x\nname: <script>\n")
    done = subprocess.run(
        [sys.executable, "-m", "bothways", "check", "p.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "error: p.yaml:2: the key 'name' is already on line 1: keep one of them\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["tuen"], "error: unknown command 'tuen': did you mean 'tune'?"),
        (["check"], "error: Missing argument"),
        (["check", "--fast"], "error: No such option: --fast"),
        (["list", "objectivs"], "error: unknown family 'objectivs': did you mean 'objective'?"),
        (["list", "--format", "xml"], "error: Invalid value for '--format': 'xml' is not one of"),
        (["assets", "fetch", "minilm"], "error: unknown asset 'minilm': did you mean 'minilm-l6'?"),
        (["assets"], "error: Missing command: see `bothways assets --help`"),
        (["space", "show", "nothing.yaml"], "error: nothing.yaml: no such file"),
        (["predict", "a text"], "error: name a --model"),
        (["predict", "--model", "."], "error: nothing to label"),
        (["predict", "--model", "nowhere", "a text"], "error: nowhere: no such directory"),
        (["predict", "--model", ".", "a", "b", "--pair", "c"], "error: 2 texts but 1 --pair"),
        (["predict", "--model", ".", "--file", "nothing.txt"], "error: nothing.txt: cannot be read: No such file"),
        (["predict", "--model", "models:/x@y", "--storage", "no", "a"], "error: models:/x@y: there is no sqlite:///"),
        (["predict", "--model", ".", "--file", "x", "text"], "error: give texts or --file, not both"),
        (["check", "\x1b[31m.yaml"], "error: \\x1b[31m.yaml: no such file"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert len(err) == 1
    assert err[0].startswith(line)


@pytest.mark.parametrize("name", [*cli.COMMANDS, "space show", "assets fetch"])
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, *name.split(), "--help")
    assert (code, err) == (0, [])
    assert f"bothways {name}" in out


def test_our_own_failures_are_one_line_unless_debugged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(text: str, name: str) -> None:
        raise RuntimeError("it\nbroke")

    monkeypatch.setattr(yaml_io, "parse", broken)
    monkeypatch.delenv("BOTHWAYS_DEBUG", raising=False)
    code, _, err = call(capsys, "check", SPACES[0])
    assert code == 1
    assert err[0] == "error: RuntimeError: it broke"
    assert "BOTHWAYS_DEBUG=1" in err[1]
    monkeypatch.setenv("BOTHWAYS_DEBUG", "1")
    with pytest.raises(RuntimeError):
        cli.run(["check", str(SPACES[0])])


def test_ctrl_c_is_exit_code_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(text: str, name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(yaml_io, "parse", interrupt)
    assert call(capsys, "check", SPACES[0])[0] == 130


def test_the_catalogue_names_every_member_with_its_knobs(capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(call(capsys, "list", "--format", "json")[1])
    registered = {(f, n) for f, r in FAMILIES.items() for n in r.names()}
    assert {(m["family"], m["name"]) for m in listed} == {*registered, ("setting", "sample_mixing")}
    (rdrop,) = [member for member in listed if member["name"] == "rdrop"]
    assert rdrop["knobs"] == [{"name": "alpha", "type": "number", "range": "≥0", "default": 1.0, "search": "0.1…5 log"}]
    assert all(member["term"] for member in listed)
    assert [m["name"] for m in json.loads(call(capsys, "list", "tasks", "--format", "json")[1])] == FAMILIES[
        "task"
    ].names()


def test_the_reference_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    code, page, _ = call(capsys, "list", "--format", "md")
    assert code == 0
    kept = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert page == kept, "run: bothways list --format md > docs/methods.md"


def test_the_reference_has_a_row_for_every_member_and_a_cell_for_all_it_is_to_say(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = call(capsys, "list", "--format", "md")[1]
    named = re.findall(r"^\| ([a-z]\w*) \|", page, re.MULTILINE)
    names = {name for r in FAMILIES.values() for name in r.names()}
    assert set(named) - {"name"} == {*names, "sample_mixing"}
    (header,) = [line for line in page.splitlines() if line.startswith("| name |") and "rows/s" in line]
    (row,) = [line for line in page.splitlines() if line.startswith("| random_deletion |")]
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert cells["applies"] == "in training"
    assert cells["neutral"] == "p=0.0"
    assert cells["languages"] == "en zh"
    assert re.fullmatch(r"en [\d,]+<br>zh [\d,]+", cells["rows/s"])
    assert "search 0…0.3" in cells["knobs"]
    assert call(capsys, "list", "objective", "--format", "md")[1].startswith("| name |")


def test_what_a_transform_costs_is_known_of_registered_ones_only() -> None:
    costs = catalogue._rates()
    assert len(costs) > 5
    assert set(costs) <= set(FAMILIES["transform"].names())
    assert all(set(rates) <= {"en", "zh"} and min(rates.values()) > 0 for rates in costs.values())


def test_the_pages_say_when_their_port_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, arguments: started.append(arguments))  # it would end this process
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, _, errors = call(capsys, "ui", "--storage", tmp_path, "--port", port)
    assert (code, len(errors), started) == (2, 1, [])
    assert str(port) in errors[0] and "--port" in errors[0]


def test_tables_come_in_four_forms_and_cells_stay_data(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "[red]a|b", "value": "x\ty"}]
    for form, line in {
        Format.md: "| [red]a\\|b | x\ty |",
        Format.tsv: "[red]a|b\tx y",
        Format.json: '"name": "[red]a|b"',
        Format.table: "[red]a|b",
    }.items():
        show(rows, form)
        assert line in capsys.readouterr().out
    show([], Format.table)


def test_a_space_is_shown_with_conditions_and_size(capsys: pytest.CaptureFixture[str]) -> None:
    out = call(capsys, "space", "show", ROOT / "search_spaces" / "joint.yaml")[1]
    assert "output.objectives.0.name is rdrop" in out
    assert "joint: ∞ (4 continuous knobs, 36 combinations of the others)" in out


def test_assets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(call(capsys, "assets", "list", "--format", "json")[1])
    assert {"minilm-l6", "rotten_tomatoes", "reuters_r8", "wordnet"} <= {row["name"] for row in listed}


@pytest.fixture(scope="module")
def validator() -> Any:
    return jsonschema.Draft202012Validator(schema.pipeline_schema())


def test_shipped_files_satisfy_the_schema_that_editors_get(validator: Any) -> None:
    spaces = jsonschema.Draft202012Validator(schema.space_schema())
    for one, files in ((validator, PIPELINES), (spaces, SPACES)):
        one.check_schema(one.schema)
        for document in (yaml_io.read(file).data for file in files):
            assert is_loop(document) or one.validate(document) is None


@pytest.mark.parametrize("what", ["an unknown key", "text for a number", "a wrong type", "an unknown operation"])
def test_the_schema_refuses_what_the_reader_refuses(what: str, validator: Any) -> None:
    assert not validator.is_valid(yaml_io.parse(BROKEN[what][0], "p.yaml").data)
    assert validator.is_valid(yaml_io.parse(PIPELINE, "p.yaml").data)


def test_the_schema_holds_for_every_member_at_its_defaults(validator: Any) -> None:
    transforms = [FAMILIES["transform"].get(name)() for name in FAMILIES["transform"].names()]
    policy = [[transform.spec() | {"probability": 0.5} for transform in transforms]]
    data = {"name": "a", "experiment": {"data": {"source": "x"}, "input": {"augment": {"policy": policy}}}}
    validator.validate(data)


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(call(capsys, "schema")[1])["title"] == "Pipeline"
    assert json.loads(call(capsys, "schema", "space")[1])["title"] == "Space"
