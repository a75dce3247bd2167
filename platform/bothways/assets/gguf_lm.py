"""A causal language model in GGUF (llama.cpp's format), as a directory that transformers loads in half a second."""

from __future__ import annotations

from pathlib import Path

from bothways.assets.converters import needs

QUANTISED = "model.gguf"
"""The member's name in the asset's folder; gone after the conversion."""


def causal_lm(folder: Path) -> None:
    """Writes the weights dequantised to fp32, as safetensors, with config and tokenizer, and removes the GGUF file."""
    with needs("gguf and accelerate"):  # transformers imports them
        import accelerate  # noqa: F401
        import gguf  # noqa: F401
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quantised = AutoModelForCausalLM.from_pretrained(folder, gguf_file=QUANTISED, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=QUANTISED)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.pad_token_id = tokenizer.pad_token_id
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # transformers saves none that was quantised
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / QUANTISED).unlink()
