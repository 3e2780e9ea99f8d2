"""The transformer decoder: learned queries, one an action of the chunk, read from the tokens of the observation.

Written out rather than taken from `torch.nn.TransformerDecoder`, whose packed key and value projections copy and
zero whole weight gradients: on one CPU core a training step of the small network takes a sixth longer with it.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al., 2017, arXiv 1706.03762)."""

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(d_model, d_model)
        self.key_value = nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, queries: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from `queries` (B, Q, D) to `memory` (B, N, D); `mask` (B, N) is True where there is a token."""
        batch, length, width = queries.shape
        q = self.query(queries).view(batch, length, self.heads, -1).transpose(1, 2)
        k, v = self.key_value(memory).view(batch, memory.shape[1], 2, self.heads, -1).unbind(2)
        read = _attend(
            q,
            k.transpose(1, 2),
            v.transpose(1, 2),
            None if mask is None else mask[:, None, None, :],
            self.dropout if self.training else 0.0,
        )
        attended: Tensor = self.out(read.transpose(1, 2).reshape(batch, length, width))
        return attended


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Scaled dot-product attention of (B, heads, Q, D) to (B, heads, N, D)."""
    if q.device.type == "cpu":
        # Never in bf16: of that, torch's kernel for a CPU takes ten times as long to go back.
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), mask, dropout)
    return F.scaled_dot_product_attention(q, k, v, mask, dropout)


class DecoderLayer(nn.Module):
    """Self-attention among the queries, attention to the memory, and two linear maps; normalised before each."""

    def __init__(self, d_model: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(d_model, heads, dropout)
        self.cross_attention = Attention(d_model, heads, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(3))
        self.feedforward = nn.Sequential(
            nn.Linear(d_model, feedforward), nn.GELU(), nn.Dropout(dropout), nn.Linear(feedforward, d_model)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """Queries (B, Q, D) and memory (B, N, D) to new queries (B, Q, D)."""
        own = self.norms[0](queries)
        queries = queries + self.dropout(self.self_attention(own, own))
        queries = queries + self.dropout(self.cross_attention(self.norms[1](queries), memory, mask))
        return queries + torch.as_tensor(self.dropout(self.feedforward(self.norms[2](queries))))


class Decoder(nn.Module):
    """A stack of layers with a last normalisation."""

    def __init__(self, d_model: int, heads: int, layers: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(d_model, heads, feedforward, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, queries: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """Queries (B, Q, D), memory (B, N, D), mask (B, N) True where there is a token; gives (B, Q, D)."""
        for layer in self.layers:
            queries = layer(queries, memory, mask)
        features: Tensor = self.norm(queries)
        return features
