"""A transformer over tokens, causal or not, with the norm before or after each part.

Vaswani et al. 2017 (arXiv:1706.03762); the norm before each part as in GPT-2 (Radford et al. 2019).

Dropout draws from a generator that is handed in, never from torch's global one: a training is then a pure function of
its seed and goes on from a checkpoint with the same bytes. A kept value needs 16 random bits, cut out of 64-bit words,
which is four times as fast as torch's own dropout under a forked global generator (measured on a CPU).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

LEVELS = 1 << 16  # a dropout rate is a multiple of 1 / LEVELS


@dataclass(frozen=True)
class Form:
    """What all blocks of a transformer share.

    Attributes:
        width: d, components of a token.
        heads: Heads of the attention; they divide the width.
        expansion: Hidden units of a perceptron, in widths.
        dropout: Share of attention weights and of every part's outputs that is dropped in training, in [0, 1).
        norm: `before`: x + part(norm(x)), with one more norm at the end; `after`: norm(x + part(x)).
        activation: Of the perceptrons; may work in place.
    """

    width: int
    heads: int = 1
    expansion: int = 4
    dropout: float = 0.0
    norm: Literal["before", "after"] = "before"
    activation: Callable[[Tensor], Tensor] = torch.relu_


class Transformer(nn.Module):
    """Blocks of attention and a perceptron.

    Args:
        form: Of every block.
        depth: Blocks.
        causal: A token sees itself and what stands before it, else all tokens.
        generator: Source of the initial weights, N(0, 0.02^2) as in GPT-2.
    """

    def __init__(self, form: Form, *, depth: int, causal: bool = True, generator: torch.Generator) -> None:
        super().__init__()
        self.causal = causal
        self.blocks = nn.ModuleList(Block(form, generator) for _ in range(depth))
        self.norm = nn.LayerNorm(form.width) if form.norm == "before" else nn.Identity()

    def forward(
        self, x: Tensor, *, valid: Tensor | None = None, read: slice | None = None, rng: torch.Generator | None = None
    ) -> Tensor:
        """`[b, t, d]` -> `[b, t, d]`, or the tokens `read` alone.

        Args:
            x: Tokens; positions must be part of them.
            valid: `[b, t]`, true where a token is real; what stands in the others reaches no valid one. None: all.
                Tokens behind the end of a causal sequence need no mask: nothing looks ahead.
            read: Positions that are wanted: the last block works for them only. None: all.
            rng: Draws the dropout; None: nothing is dropped.
        """
        if valid is not None:
            x = torch.where(valid[:, :, None], x, 0)  # a weight of zero does not stop NaN
        seen = Seen.among(x, causal=self.causal, valid=valid)
        for block in self.blocks[:-1]:
            x = block(x, seen, None, rng)
        out: Tensor = self.norm(self.blocks[-1](x, seen, read, rng))
        return out


class Block(nn.Module):
    """One layer."""

    def __init__(self, form: Form, generator: torch.Generator) -> None:
        super().__init__()
        self.form, width, hidden = form, form.width, form.expansion * form.width
        self.project = dense(width, 3 * width, generator)
        self.merge = dense(width, width, generator)
        self.widen = dense(width, hidden, generator)
        self.narrow = dense(hidden, width, generator)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, x: Tensor, seen: Seen, read: slice | None, rng: torch.Generator | None) -> Tensor:
        """`[b, t, d]` -> `[b, t or the length of read, d]`."""
        first, second = self.norms
        stream = x if read is None else x[:, read]
        if self.form.norm == "before":
            stream = self._add(stream, self._attend(first(x), seen, read, rng), rng)
            return self._add(stream, self._transform(second(stream)), rng)
        stream = first(self._add(stream, self._attend(x, seen, read, rng), rng))
        out: Tensor = second(self._add(stream, self._transform(stream), rng))
        return out

    def _add(self, stream: Tensor, change: Tensor, rng: torch.Generator | None) -> Tensor:
        """stream + dropout(change), in one pass over both."""
        if rng is None or not self.form.dropout:
            return stream + change
        return torch.addcmul(stream, change, kept(change, self.form.dropout, rng))

    def _transform(self, x: Tensor) -> Tensor:
        # As one table of tokens: working in place on a view, which a map of three axes returns, costs autograd copies.
        hidden = self.form.activation(self.widen(x.flatten(0, 1)))
        out: Tensor = self.narrow(hidden)
        return out.view(x.shape)

    def _attend(self, x: Tensor, seen: Seen, read: slice | None, rng: torch.Generator | None) -> Tensor:
        width = x.shape[-1]
        if read is None:
            q, k, v = torch.split(self.project(x), width, dim=-1)
        else:
            weight, bias = self.project.weight, self.project.bias
            q = linear(x[:, read], weight[:width], bias[:width])
            k, v = torch.split(linear(x, weight[width:], bias[width:]), width, dim=-1)
        q, k, v = (part.view(*part.shape[:2], self.form.heads, -1).transpose(1, 2) for part in (q, k, v))
        if rng is None or not self.form.dropout:
            simple = seen.simple and read is None
            mask = None if simple else seen.rows(read)
            attended = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=simple and seen.causal)
        else:  # the fast kernels either know no dropout of weights or draw it from the global generator
            attended = self._attend_some(q, k, v, seen.rows(read), rng)
        out: Tensor = self.merge(attended.transpose(1, 2).flatten(2))
        return out

    def _attend_some(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, rng: torch.Generator) -> Tensor:
        weights = torch.matmul(q, k.mT).mul_(q.shape[-1] ** -0.5).add_(bias).softmax(dim=-1)
        return torch.matmul(weights * kept(weights, self.form.dropout, rng), v)


@dataclass(frozen=True)
class Seen:
    """Who sees whom.

    Attributes:
        bias: `[1 or b, 1, t, t]`, added to the scores: 0 where a query (row) sees a key (column), else -inf.
        causal: Nothing looks ahead.
        simple: Nothing but that limits what is seen.
    """

    bias: Tensor
    causal: bool
    simple: bool

    @classmethod
    def among(cls, x: Tensor, *, causal: bool, valid: Tensor | None) -> Seen:
        """For tokens `[b, t, d]`, of which `valid [b, t]` are real. A token that is not sees itself too."""
        length = x.shape[1]
        allowed = torch.ones(1, 1, length, length, dtype=torch.bool, device=x.device)
        allowed = allowed.tril() if causal else allowed
        if valid is not None:
            itself = torch.eye(length, dtype=torch.bool, device=x.device)
            allowed = (allowed & valid[:, None, None, :]) | itself
        bias = torch.zeros(allowed.shape, dtype=x.dtype, device=x.device).masked_fill_(~allowed, -torch.inf)
        return cls(bias, causal, valid is None)

    def rows(self, read: slice | None) -> Tensor:
        """`[1 or b, 1, q, t]`, those of the queries that are wanted."""
        return self.bias if read is None else self.bias[..., read, :]


def dense(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """An affine map with weights N(0, 0.02^2) and no offset."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")  # torch's own start is global
    nn.init.normal_(layer.weight, std=0.02, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def kept(x: Tensor, dropout: float, rng: torch.Generator) -> Tensor:
    """Factors of the shape of x: 0 where a value is dropped, else what keeps the mean.

    Args:
        x: Gives shape, type and device.
        dropout: Share that goes, in [0, 1), rounded to a multiple of 2^-16.
        rng: Source, on the same device.
    """
    count, dropped = x.numel(), round(dropout * LEVELS)
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=x.device)
    words.random_(-(1 << 63), None, generator=rng)  # all 64 bits: without limits the sign bit would stay 0
    draws, factors = words.view(torch.int16)[:count].view(x.shape), torch.empty(x.shape, dtype=x.dtype, device=x.device)
    torch.ge(draws, dropped - LEVELS // 2, out=factors)
    return factors.mul_(LEVELS / (LEVELS - dropped))
