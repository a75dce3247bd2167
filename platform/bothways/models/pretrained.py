"""Pretrained weights in the architecture a task needs: read from a directory, by the classes of transformers."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from bothways.task_contract import Architecture
from bothways.tokenization import tokenizer

_HOW = {"dtype": torch.float32, "local_files_only": True, "output_loading_info": True}


def pretrained(path: str, architecture: Architecture) -> tuple[Any, set[str]]:
    """The model in fp32, and the names of its parameters that are new.

    Raises what transformers raises (`OSError`, `ValueError`) when `path` holds no model for it.
    """
    config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
    name = _fitting(config, architecture.auto)
    if name == "EncoderDecoderModel":
        return _warm_started(path, architecture.decoder_layers or config.num_hidden_layers, config.num_hidden_layers)
    if architecture.decoder_layers and config.model_type != "encoder-decoder":  # else one of ours, exported
        raise ValueError("it has a decoder of its own: leave task.decoder_layers out")
    for key, value in architecture.settings:
        setattr(config, key, value)
    model, info = getattr(transformers, name).from_pretrained(path, config=config, ignore_mismatched_sizes=True, **_HOW)
    new = _new(info) & model.state_dict().keys()
    if isinstance(model, transformers.EncoderDecoderModel):  # one of ours, exported
        _leave_out_pooler(model)
    if config.model_type == "xlnet":
        _like_the_others(model)
    elif name == "AutoModelForSequenceClassification" and _only_writes(config):
        _by_the_last_token(model, path)
    return model, _with_body(model, path, new)


def _fitting(config: Any, names: tuple[str, ...]) -> str:
    """The first of these classes of transformers that makes a model of this configuration. Raises `ValueError`."""
    if names[0] == "AutoModelForCausalLM" and config.model_type == "xlnet":
        raise ValueError("XLNet sees what it would have to write: take a decoder (GPT-2, Llama, …)")
    for name in names:
        if _is_both_halves(config) if name == "EncoderDecoderModel" else _knows(name, config):
            return name
    kind, way = names[0].removeprefix("AutoModelFor"), _INSTEAD.get(names[0], "an encoder (BERT, RoBERTa, …)")
    raise ValueError(f"there is no {kind} of the family {config.model_type}: take {way}")


_INSTEAD = {
    "AutoModelForCausalLM": "a decoder (GPT-2, Llama, …), or for an encoder-decoder the task seq2seq",
    "AutoModelForSeq2SeqLM": "an encoder-decoder (T5, BART, …) or BERT or RoBERTa, or for a decoder the task causal_lm",
}


def _knows(name: str, config: Any) -> bool:
    """Whether a class makes a model of this configuration. Half of an encoder-decoder is no model."""
    half = name == "AutoModelForCausalLM" and config.is_encoder_decoder
    return not half and type(config) in getattr(transformers, name)._model_mapping


def _only_writes(config: Any) -> bool:
    """Whether this is a decoder, and of no family that is an encoder as well."""
    return _knows("AutoModelForCausalLM", config) and not _knows("AutoModelForMaskedLM", config)


def _is_both_halves(config: Any) -> bool:
    """Whether this is an encoder that can be the decoder beside itself, too: one that attends to what is encoded."""
    decoders = transformers.AutoModelForCausalLM._model_mapping
    if config.is_encoder_decoder or type(config) not in decoders or not _knows("AutoModelForMaskedLM", config):
        return False
    return "encoder_hidden_states" in inspect.signature(decoders[type(config)].forward).parameters


def _with_body(model: Any, path: str, new: set[str]) -> set[str]:
    """What stays new once the body has its weights, in place.

    The answerers of Llama and Qwen call `transformer` what is called `model` elsewhere, and find nothing of it.
    """
    inside = f"{model.base_model_prefix}."
    own = {name for name in model.state_dict() if name.startswith(inside)}
    if not own or not own <= new:
        return new
    body, info = transformers.AutoModel.from_pretrained(path, **_HOW)
    model.base_model.load_state_dict(body.state_dict())
    return (new - own) | {f"{inside}{name}" for name in _new(info)}


def _new(info: Any) -> set[str]:
    return {*info["missing_keys"], *(mismatch[0] for mismatch in info["mismatched_keys"])}


def _warm_started(path: str, layers: int, there: int) -> tuple[Any, set[str]]:
    """An encoder twice: as it is, and its first `layers` as the decoder, with new cross-attention (Rothe 2020)."""
    if layers > there:
        raise ValueError(f"task.decoder_layers is {layers}, but it has {there} layers")
    encoder, read = transformers.AutoModel.from_pretrained(path, **_HOW)
    decoder, written = transformers.AutoModelForCausalLM.from_pretrained(
        path, is_decoder=True, add_cross_attention=True, num_hidden_layers=layers, **_HOW
    )
    model = transformers.EncoderDecoderModel(encoder=encoder, decoder=decoder)
    _leave_out_pooler(model)
    fast = tokenizer(path)
    ids = {
        "pad_token_id": fast.pad_token_id,
        "decoder_start_token_id": fast.cls_token_id if fast.bos_token_id is None else fast.bos_token_id,
        "eos_token_id": fast.sep_token_id if fast.eos_token_id is None else fast.eos_token_id,
    }
    for name, value in ids.items():
        setattr(model.config, name, value)
        setattr(model.generation_config, name, value)
    new = {f"encoder.{name}" for name in _new(read)} | {f"decoder.{name}" for name in _new(written)}
    return model, new & model.state_dict().keys()


def _like_the_others(model: Any) -> None:
    """XLNet among models that fill up rows at their end: its classifier reads the last place, which is to be the row's
    own last token. The vector that stands for what is predicted in pretraining gets no gradient here."""
    unused = [name for name, _ in model.named_parameters() if name.endswith("mask_emb")]
    ignore: Any = nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    ignore(model, unused)
    if hasattr(model, "sequence_summary"):
        mask = _mask(model)
        model.sequence_summary.register_forward_pre_hook(lambda _, given: (_last(given[0], *mask)[:, None],))


def _by_the_last_token(model: Any, path: str) -> None:
    """A decoder whose classifier reads each row's last token, (N, H), and nothing else.

    Transformers has it read all tokens, and picks the logits of the last one that is no padding by its id; so not where
    the model reads embeddings, nor without a token for padding. Here all of a row's tokens have those logits.
    """
    mask = _mask(model)
    classifier = [part for part in model.modules() if isinstance(part, nn.Linear)][-1]
    classifier.register_forward_pre_hook(lambda _, given: (_last(given[0], *mask),))
    classifier.register_forward_hook(lambda _, __, logits: logits[:, None].expand(-1, mask[0].shape[1], -1))
    settings = model.config.get_text_config()
    if settings.pad_token_id is None:
        fast = tokenizer(path)
        settings.pad_token_id = fast.eos_token_id if fast.pad_token_id is None else fast.pad_token_id


def _mask(model: Any) -> list[Tensor]:
    """Holds the attention mask (N, T) of the model's pass."""
    found: list[Tensor] = []

    def note(_module: Any, _arguments: Any, inputs: Any) -> None:
        found[:] = [inputs["attention_mask"]]

    model.register_forward_pre_hook(note, with_kwargs=True)
    return found


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    """Of hidden states (N, T, H) each row's last one, (N, H)."""
    return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(dim=1) - 1]


def _leave_out_pooler(model: Any) -> None:
    """The decoder reads all tokens of the encoder; a part that gets no gradient would stop DDP."""
    if getattr(model.encoder, "pooler", None) is not None:
        model.encoder.pooler = None


_POSITIONS = ("position_embeddings", "embed_positions", "wpe")


def places(module: nn.Module) -> int | None:
    """Tokens of a text for which the model has learned positions; None where these have no end (T5, Llama, XLNet)."""
    found = [
        part.num_embeddings - getattr(part, "offset", 0) - (0 if part.padding_idx is None else part.padding_idx + 1)
        for name, part in module.named_modules()
        if isinstance(part, nn.Embedding) and name.rpartition(".")[2] in _POSITIONS
    ]
    return min(found, default=None)


def own_weights(module: nn.Module) -> dict[str, Tensor]:
    """A model's weights by name; of one with several names (an embedding that is the output layer too), the first."""
    seen: set[tuple[int, torch.Size]] = set()
    found = {}
    for name, value in module.state_dict().items():
        key = (value.data_ptr(), value.shape)
        if key not in seen or not value.numel():
            found[name] = value
            seen.add(key)
    return found


def dropout_rates(module: nn.Module) -> dict[tuple[str, str], float]:
    """Every rate of dropout by part and attribute: those of `nn.Dropout`, and those that parts keep as numbers."""
    return {
        (name, key): value
        for name, part in module.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, float) and ("dropout" in key or (key == "p" and isinstance(part, nn.Dropout)))
    }
