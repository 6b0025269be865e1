"""The decoder in torch: a llama with tied embeddings, no biases and full attention heads.

It exists for training only; weir_lab.llama serves the same arithmetic in numpy.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

LONGEST = 256


@dataclass(frozen=True)
class Shape:
    width: int
    layers: int
    heads: int
    inner: int
    vocabulary: int = 2_048
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5


class Norm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class Block(nn.Module):
    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = shape.heads, dropout
        self.attention_norm = Norm(shape.width, shape.norm_eps)
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.out = nn.Linear(shape.width, shape.width, bias=False)
        self.inner_norm = Norm(shape.width, shape.norm_eps)
        self.gate_up = nn.Linear(shape.width, 2 * shape.inner, bias=False)
        self.down = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rows, length, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(rows, length, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed = self.out(mixed.transpose(1, 2).reshape(rows, length, width))
        x = x + functional.dropout(mixed, self.dropout, self.training)
        gate, up = self.gate_up(self.inner_norm(x)).chunk(2, -1)
        inner = self.down(functional.silu(gate) * up)
        return x + functional.dropout(inner, self.dropout, self.training)


class Decoder(nn.Module):
    def __init__(self, shape: Shape, dropout: float = 0.1) -> None:
        super().__init__()
        self.shape, self.dropout = shape, dropout
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList([Block(shape, dropout) for _ in range(shape.layers)])
        self.norm = Norm(shape.width, shape.norm_eps)
        self._start()
        half = torch.arange(0, shape.width // shape.heads, 2).float()
        turns = 1 / shape.rope_theta ** (half / (shape.width // shape.heads))
        angles = torch.arange(LONGEST).float()[:, None] * turns[None]
        self.register_buffer("cos", torch.cat([angles.cos()] * 2, -1), persistent=False)
        self.register_buffer("sin", torch.cat([angles.sin()] * 2, -1), persistent=False)

    def _start(self) -> None:
        for name, weight in self.named_parameters():
            if weight.dim() != 2:
                continue
            residual = 0.5 if name.endswith(("out.weight", "down.weight")) else 1.0
            spread = 0.02 if "embedding" in name else residual * weight.shape[1] ** -0.5
            nn.init.normal_(weight, 0, spread)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the last hidden states, shape rows x length x width."""
        x = functional.dropout(self.embedding(ids), self.dropout, self.training)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.embedding.weight.T

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights under the names a Hugging Face llama gives them."""
        found = {
            "model.embed_tokens.weight": self.embedding.weight,
            "model.norm.weight": self.norm.weight,
        }
        for number, block in enumerate(self.blocks):
            query, key, value = block.qkv.weight.chunk(3, 0)
            gate, up = block.gate_up.weight.chunk(2, 0)
            parts = {
                "input_layernorm": block.attention_norm.weight,
                "self_attn.q_proj": query,
                "self_attn.k_proj": key,
                "self_attn.v_proj": value,
                "self_attn.o_proj": block.out.weight,
                "post_attention_layernorm": block.inner_norm.weight,
                "mlp.gate_proj": gate,
                "mlp.up_proj": up,
                "mlp.down_proj": block.down.weight,
            }
            found |= {f"model.layers.{number}.{name}.weight": part for name, part in parts.items()}
        return {name: weight.detach().float().clone() for name, weight in found.items()}


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary positions, half-split form (Su et al., RoFormer, 2021, eq. 34)."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin
