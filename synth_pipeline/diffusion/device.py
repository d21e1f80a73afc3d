"""Where and how precisely networks compute: the device by name, bfloat16 where the hardware multiplies it natively."""

from __future__ import annotations

import os
from typing import Literal

import torch

from synth_pipeline.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16"]
Resolved = Literal["float32", "bfloat16"]
VARIABLE = "SYNTHPIPE_DEVICE"


def pick_device(name: str) -> torch.device:
    """`auto` is what the variable `SYNTHPIPE_DEVICE` says, else the first CUDA device, else the CPU.

    Raises:
        ConfigError: When torch has no such device here.
    """
    wanted = os.environ.get(VARIABLE, "auto") if name == "auto" else name
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=wanted).device
    except (RuntimeError, AssertionError) as error:  # a CPU build asserts
        raise ConfigError(
            f"the device '{wanted}' cannot be used",
            found=str(error).splitlines()[0],
            accepted=", ".join(["auto", "cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]),
            fix=f"{VARIABLE}=auto takes what is there; `synthpipe doctor` says what that is",
        ) from None


def resolve_precision(wanted: Precision, device: torch.device) -> Resolved:
    """`auto` is bfloat16 where the device multiplies it natively; emulated it is several times slower than float32."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if native_bfloat16(device) else "float32"


def native_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 on this device."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(device: torch.device, precision: Resolved) -> torch.autocast:
    """The context in which a network computes its matrix products in `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
