"""`bothways prepare`: from a pipeline's texts to a language model that plain transformers loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from bothways.cli import run
from bothways.config.yaml_io import dump
from tests import tiny


def pipeline(folder: Path, **model: object) -> str:
    rows = tiny.rows(60, seed=4).to_pylist()
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps({"text": r["text"], "label": r["label"]}) + "\n" for r in rows)
    )
    experiment = {
        "data": {"source": str(folder / "rows.jsonl")},
        "model": {"source": tiny.model_dir(), "max_length": 24, **model},
    }
    file = folder / "p.yaml"
    file.write_text(dump({"name": "p", "experiment": experiment}), "utf-8")
    return str(file)


def test_a_language_model_is_trained_kept_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {"name": "continued_pretraining", "steps": 500, "batch_size": 8, "mask": 0.3}
    out = tmp_path / "lm"
    file = pipeline(tmp_path, prepare=[own], vocabulary="whole")
    assert run(["prepare", file, "--out", str(out), "--steps", "12", "--lr", "0.01"]) == 0
    said = capsys.readouterr().out
    assert "step    12/12" in said and "top-5" in said and str(out) in said
    model, words = AutoModelForMaskedLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    pooler = "bert.pooler.dense.weight"  # no part of a language model, but of what a classifier starts from
    before = safetensors.torch.load_file(f"{tiny.model_dir()}/model.safetensors")[pooler.removeprefix("bert.")]
    assert torch.equal(safetensors.torch.load_file(out / "model.safetensors")[pooler], before)
    read = words("the film was [MASK]", return_tensors="pt")
    with torch.no_grad():
        assert model(**read).logits.shape[-1] == len(words)
    from bothways.input_side.masked_lm import masked_lm

    assert masked_lm(str(out)).mask_id == words.mask_token_id


@pytest.mark.slow
def test_texts_are_read_as_the_task_reads_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, rows = pipeline(tmp_path), tiny.rows(60, seed=4)["text"].to_pylist()
    words = [{"text": text.split(), "label": ["O"] * (len(text.split()) - 1) + ["B-X"]} for text in rows]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in words))
    task = "experiment.task.name=token_classification"
    assert run(["prepare", file, task, "--out", str(tmp_path / "lm"), "--steps", "2"]) == 0, capsys.readouterr().err
    assert (tmp_path / "lm" / "model.safetensors").exists()


def test_a_place_that_cannot_be_written_to_is_known_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = pipeline(tmp_path)
    assert run(["prepare", file, "--out", f"{file}/lm"]) == 2
    assert "--out: " in (error := capsys.readouterr().err) and "cannot be written to" in error


def test_what_is_there_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "lm"
    out.mkdir()
    assert run(["prepare", pipeline(tmp_path), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "is there already" in error and error.count("\n") == 1


def test_a_pipeline_says_what_is_wrong_with_its_preparations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage, said in (
        ({"name": "continued_pretrainin"}, "did you mean"),
        ({"name": "continued_pretraining", "steps": -1}, "prepare"),
        ({"name": "continued_pretraining", "stepz": 3}, "steps"),
    ):
        assert run(["check", pipeline(tmp_path, prepare=[stage])]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    overrides = ["experiment.model.prepare.0.name=continued_pretraining", "experiment.model.prepare.0.steps=3"]
    from bothways.config.yaml_io import load_pipeline

    (stage,) = load_pipeline(pipeline(tmp_path), overrides).experiment.model.prepare
    assert (stage.name, stage.steps) == ("continued_pretraining", 3)
