"""Networks over vectors: SynthER's published residual MLP, and a modern one."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class RandomFourier(nn.Module):
    """Random Fourier features of the noise level: sin and cos of fixed random frequencies, and the value itself.

    Args:
        pairs: Number of frequencies, drawn from N(0, scale^2) once and saved with the weights.
        scale: Standard deviation of the frequencies.
        generator: Source of the frequencies.
    """

    frequencies: Tensor

    def __init__(self, pairs: int, *, scale: float = 1.0, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(pairs, generator=generator))

    def forward(self, c_noise: Tensor) -> Tensor:
        """`[b]` -> `[b, 2 * pairs + 1]`."""
        angle = 2 * math.pi * c_noise[:, None] * self.frequencies
        return torch.cat([c_noise[:, None], angle.sin(), angle.cos()], dim=-1)


class ResidualMLP(nn.Module):
    """The denoiser that SynthER published (Lu et al. 2023, arXiv:2303.06614, app. B): 25.5 M parameters at width 2048.

    x and noise features are each taken to 128 units and added, widened to `width`, sent through `depth` blocks
    x + Linear(ReLU(x)), and read out after a last ReLU.

    Args:
        channels: Channels of x.
        width: Units of the blocks.
        depth: Number of blocks.
        generator: Source of the Fourier frequencies.
    """

    EMBEDDING = 128

    def __init__(
        self, channels: int, *, width: int = 2048, depth: int = 6, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        inner = self.EMBEDDING
        self.features = RandomFourier(8, generator=generator)
        self.noise = nn.Sequential(nn.Linear(17, inner), nn.SiLU(), nn.Linear(inner, inner))
        self.input = nn.Linear(channels, inner)
        self.widen = nn.Linear(inner, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.output = nn.Linear(width, channels)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """`[b, channels]`, `[b]` -> `[b, channels]`."""
        h: Tensor = self.widen(self.input(x) + self.noise(self.features(c_noise)))
        for block in self.blocks:
            h = h + block(torch.relu(h))
        out: Tensor = self.output(torch.relu(h))
        return out


class Sinusoidal(nn.Module):
    """Sines and cosines of log-spaced frequencies of the noise level.

    Args:
        size: Number of features, even.
        largest: Highest frequency, in radians per unit of c_noise.
    """

    frequencies: Tensor

    def __init__(self, size: int, *, largest: float = 32.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(-1, math.log10(largest), size // 2))

    def forward(self, c_noise: Tensor) -> Tensor:
        """`[b]` -> `[b, size]`."""
        angle = c_noise[:, None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class ModulatedBlock(nn.Module):
    """x + gate * MLP(norm(x) (1 + scale) + shift), with scale, shift and gate from outside (adaLN-Zero).

    Peebles & Xie 2023 (arXiv:2212.09748, sec. 3.2).
    """

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, expansion * width), nn.SiLU(), nn.Linear(expansion * width, width))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """`[b, width]`, `[b or 1, 3 * width]` -> `[b, width]`."""
        scale, shift, gate = modulation.chunk(3, dim=-1)
        return torch.addcmul(x, gate, self.mlp(torch.addcmul(shift, self.norm(x), 1 + scale)))


class ModulatedMLP(nn.Module):
    """Pre-norm residual MLP whose every block is modulated by the noise level and, if given, a condition.

    One modulation serves all blocks, each adding an offset of its own (adaLN-single; Chen et al. 2023,
    arXiv:2310.00426, sec. 2.3). It starts at zero, so that every block starts as identity. Rows that share one noise
    level and have no condition share one modulation too, which makes sampling cheaper.

    Args:
        channels: Channels of x.
        width: Units of the residual stream.
        depth: Number of blocks.
        expansion: Hidden units of a block, in widths.
        condition: Components of the condition; 0: none. Its null is a learned vector.
    """

    def __init__(
        self, channels: int, *, width: int = 256, depth: int = 4, expansion: int = 2, condition: int = 0
    ) -> None:
        super().__init__()
        self.features = Sinusoidal(64)
        self.noise = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = (
            nn.Sequential(nn.Linear(condition, width), nn.SiLU(), nn.Linear(width, width)) if condition else None
        )
        self.null = nn.Parameter(torch.zeros(width)) if condition else None
        self.modulation = nn.Linear(width, 3 * width)
        self.offsets = nn.Parameter(torch.zeros(depth, 3 * width))
        self.input = nn.Linear(channels, width)
        self.blocks = nn.ModuleList(ModulatedBlock(width, expansion) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, channels)
        for layer in (self.modulation, self.output):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, x: Tensor, c_noise: Tensor, condition: Tensor | None = None, given: Tensor | None = None
    ) -> Tensor:
        """The raw network.

        Args:
            x: `[b, channels]`.
            c_noise: `[b]`.
            condition: `[b, condition]`; None: every row unconditional.
            given: `[b]` bool, which rows use their condition; None: all.
        """
        shared = len(x) > 0 and c_noise.stride(0) == 0  # one level, expanded over the rows
        embedding = self.noise(self.features(c_noise[:1] if shared else c_noise))
        if self.condition is not None and self.null is not None:
            told = self.null if condition is None else self.condition(condition)
            embedding = embedding + (told if given is None else torch.where(given[:, None], told, self.null))
        modulation = self.modulation(torch.nn.functional.silu(embedding))
        h = self.input(x)
        for block, offset in zip(self.blocks, self.offsets, strict=True):
            h = block(h, modulation + offset)
        out: Tensor = self.output(self.norm(h))
        return out
