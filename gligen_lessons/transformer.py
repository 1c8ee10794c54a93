"""The transformer of DETR (Vaswani et al. 2017, arXiv 1706.03762; DETR, appendix A.3).

Tokens x (b,n,d) are vectors; what says where they lie is kept apart, in `position` and `query`, and
added to queries and keys in every layer.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sine_positions(h: int, w: int, d: int) -> Tensor:
    """Where the positions of a map lie, (h*w,d): half for the row, half for the column.

    Both count from 1, scaled to (0, 2 pi]; sine and cosine alternate (paper, A.4).
    """
    powers = torch.arange(d // 2).double() // 2 * 2 / (d // 2)  # 0, 0, 2, 2 ... of d/2
    rates = 10000.**powers                                      # (d/2,)

    def sinusoids(n: int) -> Tensor:
        count = torch.arange(1, n + 1).double()[:, None]        # (n,1)
        angles = 2 * math.pi * count / (n + 1e-6) / rates       # (n,d/2)
        return torch.stack([angles[:, ::2].sin(), angles[:, 1::2].cos()], 2).flatten(1)

    y, x = sinusoids(h)[:, None].expand(h, w, -1), sinusoids(w)[None].expand(h, w, -1)
    return torch.cat([y, x], dim=2).flatten(0, 1)               # (h*w,d)


class DetrAttention(nn.Module):
    """Attention that knows where: queries and keys carry positions, values do not."""

    def __init__(self, d: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(d, d), nn.Linear(d, d)
        self.v_proj, self.o_proj = nn.Linear(d, d), nn.Linear(d, d)

    def split(self, x: Tensor) -> Tensor:
        """Cut the width into heads: (b,n,d) to (b,k,n,d/k)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def map(self, x: Tensor, position: Tensor, source: Tensor,
            source_position: Tensor) -> Tensor:
        """How much each x attends to each of `source`, (b,k,n,m); rows sum to one."""
        q, k = self.q_proj(x + position), self.k_proj(source + source_position)
        q, k = self.split(q), self.split(k)
        return (q / q.shape[-1] ** .5 @ k.transpose(2, 3)).softmax(-1)

    def forward(self, x: Tensor, position: Tensor, source: Tensor,
                source_position: Tensor) -> Tensor:
        q, k = self.q_proj(x + position), self.k_proj(source + source_position)
        q, k, v = self.split(q), self.split(k), self.split(self.v_proj(source))
        y = F.scaled_dot_product_attention(q, k, v)             # (b,k,n,d/k)
        return self.o_proj(y.transpose(1, 2).flatten(2))        # (b,n,d)


class DetrMLP(nn.Module):
    """What each token does alone."""

    def __init__(self, d: int, d_inner: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d, d_inner), nn.Linear(d_inner, d)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(x)))                    # (b,n,d)


class DetrEncoderLayer(nn.Module):
    """Positions attend to each other; a norm after each sum (paper, figure 10 left)."""

    def __init__(self, d: int, heads: int, d_inner: int, dropout: float):
        super().__init__()
        self.self_attn = DetrAttention(d, heads)
        self.self_attn_layer_norm = nn.LayerNorm(d)
        self.mlp, self.final_layer_norm = DetrMLP(d, d_inner), nn.LayerNorm(d)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        seen = self.self_attn(x, position, x, position)               # (b,n,d)
        x = self.self_attn_layer_norm(x + self.dropout(seen))
        return self.final_layer_norm(x + self.dropout(self.mlp(x)))     # (b,n,d)


class DetrDecoderLayer(nn.Module):
    """Queries attend to each other, then to the picture (paper, figure 10 right)."""

    def __init__(self, d: int, heads: int, d_inner: int, dropout: float):
        super().__init__()
        self.self_attn = DetrAttention(d, heads)
        self.self_attn_layer_norm = nn.LayerNorm(d)
        self.encoder_attn = DetrAttention(d, heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(d)
        self.mlp, self.final_layer_norm = DetrMLP(d, d_inner), nn.LayerNorm(d)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, query: Tensor, memory: Tensor,
                position: Tensor) -> Tensor:
        told = self.self_attn(x, query, x, query)               # (b,q,d)
        x = self.self_attn_layer_norm(x + self.dropout(told))
        seen = self.encoder_attn(x, query, memory, position)       # (b,q,d)
        x = self.encoder_attn_layer_norm(x + self.dropout(seen))
        return self.final_layer_norm(x + self.dropout(self.mlp(x)))     # (b,q,d)


class DetrEncoder(nn.Module):
    """From the map's positions to the memory that the queries read."""

    def __init__(self, count: int, d: int, heads: int, d_inner: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(
            DetrEncoderLayer(d, heads, d_inner, dropout) for _ in range(count))

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, position)
        return x                                                # (b,n,d)


class DetrDecoder(nn.Module):
    """All q answers at once, refined layer by layer; one norm reads out every layer."""

    def __init__(self, count: int, d: int, heads: int, d_inner: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(
            DetrDecoderLayer(d, heads, d_inner, dropout) for _ in range(count))
        self.layernorm = nn.LayerNorm(d)

    def forward(self, query: Tensor, memory: Tensor, position: Tensor) -> Tensor:
        x = torch.zeros_like(query).expand(len(memory), -1, -1)     # begin empty
        states = []
        for layer in self.layers:
            x = layer(x, query, memory, position)
            states.append(self.layernorm(x))                    # is read, not fed back
        return torch.stack(states)                              # (layers,b,q,d)
