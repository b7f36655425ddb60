"""Dropping into a model: the norms of a trained classifier replaced, its weights and its answers kept."""

# %% A small vision transformer with torch's own norms, trained on handwritten digits of 8 x 8 pixels.
from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import normkit.torch

torch.manual_seed(0)
digits = load_digits()
pixels = torch.tensor(digits.data, dtype=torch.float32) / 16
labels = torch.tensor(digits.target)
train, test = slice(0, 1400), slice(1400, None)


class Block(nn.Module):
    """Pre-norm: attention, then two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.before_layers = nn.RMSNorm(width)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        h = self.before_attention(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        out: Tensor = x + self.layers(self.before_layers(x))
        return out


class Classifier(nn.Module):
    """Eight rows of pixels are eight tokens."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(0.02 * torch.randn(8, width))
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.blocks(self.embed(x.view(-1, 8, 8)) + self.position)
        logits: Tensor = self.head(tokens.mean(1))
        return logits


def fit(model: nn.Module, steps: int) -> float:
    """Trains on random batches; gives the mean loss of the last ten steps."""
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        batch = torch.randint(0, 1400, (128,))
        loss = F.cross_entropy(model(pixels[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-10:]) / 10


def accuracy(model: nn.Module) -> float:
    with torch.no_grad():
        right: Tensor = model(pixels[test]).argmax(1) == labels[test]
        return right.double().mean().item()


model = Classifier()
print(f"trained with torch's norms: loss {fit(model, 80):.3f}, accuracy {accuracy(model):.1%}")

# %% One call replaces them. Parameters stay the same objects, so optimizers and checkpoints go on.
with torch.no_grad():
    before = model(pixels[test])
state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
print(normkit.torch.convert(model))

# %% The same answers, to float32's rounding.
with torch.no_grad():
    after = model(pixels[test])
difference = (after - before).abs().max().item() / before.abs().max().item()
print(f"largest difference of the logits: {difference:.1e} of the largest, accuracy {accuracy(model):.1%}")
assert difference < 1e-4
assert model.state_dict().keys() == state.keys()

# %% And it trains on.
print(f"trained further with normkit's norms: loss {fit(model, 80):.3f}, accuracy {accuracy(model):.1%}")
