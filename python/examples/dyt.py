"""DyT instead of LayerNorm (Zhu et al. 2025, arXiv 2503.10622): a tanh of a learned slope, no statistics."""

# %% A residual network on handwritten digits, with whichever norm it is given.
from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from normkit.torch import DyT, LayerNorm

digits = load_digits()
pixels = torch.tensor(digits.data, dtype=torch.float32) / 4
labels = torch.tensor(digits.target)
WIDTH, DEPTH = 64, 4


class Network(nn.Module):
    """Residual blocks, each with a norm in front."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Linear(64, WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(norm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
            for _ in range(DEPTH)
        )
        self.head = nn.Sequential(norm(WIDTH), nn.Linear(WIDTH, 10))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.embed(x)
        for block in self.blocks:
            h = h + block(h)
        logits: Tensor = self.head(h)
        return logits


def train(norm: Callable[[int], nn.Module]) -> tuple[Network, list[float], float]:
    """The network, its loss every 50 steps, and the accuracy on digits that it has not seen."""
    torch.manual_seed(0)
    network = Network(norm)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for step in range(201):
        batch = torch.randint(0, 1400, (128,))
        loss = F.cross_entropy(network(pixels[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            losses.append(loss.item())
    with torch.no_grad():
        right = network(pixels[1400:]).argmax(1) == labels[1400:]
    return network, losses, right.double().mean().item()


# %% Both, from the same seed. The paper starts alpha at 0.5.
for name, norm in {"LayerNorm": LayerNorm, "DyT": DyT}.items():
    network, losses, accuracy = train(norm)
    curve = "  ".join(f"{loss:.3f}" for loss in losses)
    print(f"{name:9} loss every 50 steps: {curve}   accuracy {accuracy:.1%}")
    if name == "DyT":
        learned = [module.alpha.item() for module in network.modules() if isinstance(module, DyT)]

# %% Alpha takes the part of one over the deviation: each layer finds its own.
print("alpha, first layer to last:", "  ".join(f"{alpha:.2f}" for alpha in learned))
