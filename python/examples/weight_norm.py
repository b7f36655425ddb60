"""Weight normalization (Salimans, Kingma 2016, arXiv 1602.07868): a direction and a length, apart."""

# %% The function: w = g * v / |v|, for each row of v.
from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import normkit
from normkit.torch.parametrizations import weight_norm

v = np.array([[3.0, 4.0], [0.0, 2.0]], dtype=np.float32)
g = np.array([[10.0], [1.0]], dtype=np.float32)
print("v =", v.tolist(), " g =", g.tolist(), " w =", normkit.weight_norm(v, g).tolist())

# %% As a parametrization of a module. Names are torch's, so that checkpoints load both ways.
layer = weight_norm(nn.Linear(20, 10))
print("parameters:", ", ".join(f"{name} {list(p.shape)}" for name, p in layer.named_parameters()))
theirs = nn.utils.parametrizations.weight_norm(nn.Linear(20, 10))
theirs.load_state_dict(layer.state_dict())
x = torch.randn(5, 20)
print(f"torch's module with the same state differs by {(layer(x) - theirs(x)).abs().max().item():.1e}")


# %% What it is for: gradient descent on g and v instead of w takes steps of another size in each direction.
def train(normalize: bool) -> list[float]:
    """The loss of plain gradient descent, every 60 steps."""
    torch.manual_seed(0)
    inputs = torch.randn(512, 20)
    targets = torch.tanh(inputs @ torch.randn(20, 1))
    model = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 1))
    if normalize:
        weight_norm(model[0])
        weight_norm(model[2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for step in range(601):
        loss = F.mse_loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 60 == 0:
            losses.append(loss.item())
    return losses


for name, normalize in (("plain weights", False), ("weight norm", True)):
    print(f"{name:14}", "  ".join(f"{loss:.3f}" for loss in train(normalize)))
