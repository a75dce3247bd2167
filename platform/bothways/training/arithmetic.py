"""In how many bits a model's forward pass multiplies (Micikevicius et al. 2018; bfloat16: Kalamkar et al. 2019)."""

from __future__ import annotations

from functools import cache

import torch


@cache
def multiplies_bf16(device: torch.device) -> bool:
    """Whether bf16 arithmetic is the hardware's own. In software it is slow: 13 times slower than fp32 on a CPU with
    AVX2 only, where it is measured."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu" and torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The forward passes inside are made in `precision`, one of `Optim.precision`."""
    bf16 = precision == "bf16" or (precision == "auto" and multiplies_bf16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)
