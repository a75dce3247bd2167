"""A BERT encoder that was exported to ONNX, back as a directory that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bothways.assets.converters import needs

EXPORTED = "model.onnx"
"""The member's name in the asset's folder; gone after the conversion."""
_HEAD_SIZE = 32  # of MiniLM with 384 values a token; the exported graph has it only as a reshape


def bert(folder: Path) -> None:
    """Writes `model.safetensors` and `config.json` from the graph's weights, and removes the graph.

    An exporter keeps the names of all weights but those of matrix products, which it stores transposed. Such a one is
    named by the bias that is added to its product.
    """
    with needs("onnx"):
        import onnx
        from onnx.numpy_helper import to_array
    from safetensors.numpy import save_file

    file = folder / EXPORTED
    graph = onnx.load(str(file)).graph
    stored = {weight.name: to_array(weight) for weight in graph.initializer}
    products = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    tensors: dict[str, Any] = {}
    for name, value in stored.items():
        if not name.startswith("onnx::"):
            tensors[_bert_name(name)] = value
    for bias, added in (node.input for node in graph.node if node.op_type == "Add"):
        product = products.get(added)
        if bias.endswith(".bias") and product in stored:
            tensors[_bert_name(bias.removesuffix("bias") + "weight")] = stored.pop(product).T.copy()
    if left := [name for name in stored if name.startswith("onnx::")]:
        raise ValueError(f"{file}: no name for {', '.join(left)}")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(tensors), indent=1), "utf-8")
    file.unlink()


def _bert_name(name: str) -> str:
    """`model.0.auto_model.embeddings.…` → `embeddings.…`"""
    return name.partition("auto_model.")[2] or name


def _config(tensors: dict[str, Any]) -> dict[str, Any]:
    vocabulary, width = tensors["embeddings.word_embeddings.weight"].shape
    layers = {name.split(".")[2] for name in tensors if name.startswith("encoder.layer.")}
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": width // _HEAD_SIZE,
        "intermediate_size": tensors["encoder.layer.0.intermediate.dense.bias"].size,
        "max_position_embeddings": len(tensors["embeddings.position_embeddings.weight"]),
        "type_vocab_size": len(tensors["embeddings.token_type_embeddings.weight"]),
        "pad_token_id": 0,
    }
