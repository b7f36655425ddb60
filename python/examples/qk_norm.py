"""QK-norm in attention: normalized queries and keys bound the logits, whatever their projections grow to."""

# %% Attention over a packed projection. Queries and keys are views of it, which normkit takes as they are.
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normkit.torch import QKNorm

torch.manual_seed(0)
HEADS, KEY_HEADS, HEAD_DIM = 8, 2, 16
WIDTH = HEADS * HEAD_DIM


class Attention(nn.Module):
    """Grouped-query attention: four query heads share a key head."""

    def __init__(self, norm: str | None) -> None:
        super().__init__()
        self.packed = nn.Linear(WIDTH, (HEADS + 2 * KEY_HEADS) * HEAD_DIM, bias=False)
        self.norm = None if norm is None else QKNorm(HEAD_DIM, kind=norm, scale_init=math.log2(64**2 - 64))

    def logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, [batch, heads, time, time], and the values."""
        packed = self.packed(x).unflatten(-1, (-1, HEAD_DIM))
        q, k, v = packed.split([HEADS, KEY_HEADS, KEY_HEADS], dim=2)
        scale = 1 / math.sqrt(HEAD_DIM)
        if self.norm is not None:
            q, k = self.norm(q, k)
            # The learned scale of "l2" takes the place of the fixed one.
            scale = 1.0 if self.norm.kind == "l2" else scale
        k = k.repeat_interleave(HEADS // KEY_HEADS, dim=2)
        return torch.einsum("bihd,bjhd->bhij", q, k) * scale, v

    def forward(self, x: Tensor) -> Tensor:
        logits, v = self.logits(x)
        v = v.repeat_interleave(HEADS // KEY_HEADS, dim=2)
        return torch.einsum("bhij,bjhd->bihd", logits.softmax(-1), v).flatten(2)


# %% Let the projection grow, as it may during training. Without a norm the logits grow with its square.
x = torch.randn(4, 64, WIDTH)
print("largest logit, and the entropy of attention in bits of 6:")
for growth in (1, 4, 16, 64):
    row = [f"  projection x{growth:<3}"]
    for norm in (None, "rms", "l2", "layer"):
        torch.manual_seed(1)
        attention = Attention(norm)
        with torch.no_grad():
            attention.packed.weight.mul_(growth)
            logits, _ = attention.logits(x)
            p = logits.softmax(-1)
            entropy = -(p * (p + 1e-30).log2()).sum(-1).mean()
        row.append(f"{norm or 'none'}: {logits.abs().max():8.1f} ({entropy:.1f})")
    print("   ".join(row))

# %% Gradients follow. Without a norm they grow with the projection. With one, a step that is a given share of
# the projection changes the loss by the same, whatever its size.
print("gradient of the queries' projection, times the projection's size:")
target = torch.randn(4, 64, WIDTH)
for norm in (None, "rms"):
    row = []
    for growth in (1, 4, 16, 64):
        torch.manual_seed(1)
        attention = Attention(norm)
        queries_and_keys = (HEADS + KEY_HEADS) * HEAD_DIM
        with torch.no_grad():
            attention.packed.weight[:queries_and_keys] *= growth
        F.mse_loss(attention(x), target).backward()
        gradient = attention.packed.weight.grad
        assert gradient is not None
        product = gradient[:WIDTH].norm() * attention.packed.weight[:WIDTH].norm()
        row.append(f"x{growth}: {product.item():.4f}")
    print(f"  {norm or 'none':4}  {'   '.join(row)}")
