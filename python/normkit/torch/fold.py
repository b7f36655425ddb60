"""The lossless change of a Pre-LN transformer to Pre-RMSNorm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normkit.torch import modules

__all__ = ["fold_pre_ln"]

Writer = nn.Module | nn.Parameter


@dataclass(frozen=True)
class _Affine:
    """A matrix `[out, in]` and a bias: `owner`'s attributes `weight_name` and `bias_name`."""

    owner: Any
    weight_name: str
    bias_name: str | None
    transposed: bool

    @property
    def weight(self) -> Tensor:
        weight: Tensor = getattr(self.owner, self.weight_name)
        return weight.t() if self.transposed else weight

    @property
    def bias(self) -> Tensor | None:
        return None if self.bias_name is None else getattr(self.owner, self.bias_name)


def _is_gpt2_linear(module: Any) -> bool:
    """The transformers library's Conv1D, a linear layer whose weight is `[in, out]`."""
    return hasattr(module, "nf") and getattr(module, "weight", torch.empty(0)).dim() == 2


def _reader(module: nn.Module) -> _Affine:
    if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
        return _Affine(module, "in_proj_weight", "in_proj_bias", transposed=False)
    if isinstance(module, nn.Linear) or _is_gpt2_linear(module):
        return _Affine(module, "weight", "bias", transposed=not isinstance(module, nn.Linear))
    raise TypeError(
        "norms: a reader must be a torch.nn.Linear, MultiheadAttention of one width or transformers' Conv1D, "
        f"found {type(module).__name__}"
    )


def _written(writer: Writer) -> list[tuple[Tensor, int]]:
    """The tensors that enter the residual stream, each with the axis along the stream's width."""
    if isinstance(writer, Tensor):
        return [(writer, writer.dim() - 1)]
    if isinstance(writer, nn.Embedding):
        return [(writer.weight, 1)]
    out_first = isinstance(writer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    if not out_first and not _is_gpt2_linear(writer):
        raise TypeError(
            "writers: expected torch.nn.Linear, Embedding, Conv1d, Conv2d, Conv3d, Parameter or a Conv1D of "
            f"transformers, found {type(writer).__name__}"
        )
    layer: Any = writer
    bias = [] if layer.bias is None else [(layer.bias, 0)]
    return [(layer.weight, 0 if out_first else 1), *bias]


@torch.no_grad()
def fold_pre_ln(norms: Iterable[tuple[nn.LayerNorm, Iterable[nn.Module]]], writers: Iterable[Writer]) -> None:
    """Turns the LayerNorms of a Pre-LN transformer into RMSNorms, in place, with the same outputs.

    `norms` has each LayerNorm that reads the residual stream, with the linear layers that read it in turn:
    the projections of queries, keys and values, the first layer of the MLP, the head. `writers` has all that
    is added to the stream: embeddings (also a parameter, such as a class token), the output projections of
    attention, the last layers of the MLPs.

        fold_pre_ln(
            norms=[(b.norm1, [b.qkv]) for b in blocks]
            + [(b.norm2, [b.fc1]) for b in blocks]
            + [(norm, [head])],
            writers=[tokens, positions] + [b.proj for b in blocks] + [b.fc2 for b in blocks],
        )

    First the readers take the norm's parameters: `W <- W diag(weight)`, `b <- b + W bias`, a bias being added
    to a layer that has none. Then the writers lose the mean over their outputs: `W <- W - mean(W)`, `b <- b -
    mean(b)`. Every vector of the stream then has mean zero, and LayerNorm of it is RMSNorm with the same eps.
    The arithmetic is in float64; what changes is rounding.

    Every reader and every writer must be named, or the outputs change. Nothing else may touch the elements of
    the stream one by one, such as dropout of a branch's output while training. A weight that is read and
    written, as where a head shares the embedding's, cannot be folded: ValueError. So is a size that does not
    fit. Jiang et al. 2023.
    """
    pairs = [(norm, [_reader(module) for module in readers]) for norm, readers in norms]
    tensors = {id(tensor): (tensor, axis) for writer in writers for tensor, axis in _written(writer)}
    _check(pairs, tensors)
    for norm, readers in pairs:
        for reader in readers:
            _take(norm, reader)
        norm.__class__ = modules.RMSNorm  # type: ignore[assignment]
        norm.__dict__.update(elementwise_affine=False, offset=0.0, cast="fp32", partial=1.0)
        norm.register_parameter("weight", None)
        del norm.bias
    for tensor, axis in tensors.values():
        wide = tensor.double()
        tensor.copy_(wide - wide.mean(axis, keepdim=True))


def _check(pairs: list[tuple[nn.LayerNorm, list[_Affine]]], tensors: dict[int, tuple[Tensor, int]]) -> None:
    seen: set[int] = set()
    width = None
    for norm, readers in pairs:
        if not isinstance(norm, nn.LayerNorm) or len(norm.normalized_shape) != 1:
            raise TypeError(f"norms: expected a torch.nn.LayerNorm of one axis, found {norm}")
        width = norm.normalized_shape[0] if width is None else width
        if norm.normalized_shape[0] != width:
            raise ValueError(f"norms: expected width {width}, found {norm.normalized_shape[0]}")
        if not readers and norm.elementwise_affine:
            raise ValueError("norms: a LayerNorm with parameters needs the layers that read it")
        for reader in readers:
            weight = getattr(reader.owner, reader.weight_name)
            if reader.weight.shape[1] != width:
                raise ValueError(f"norms: expected readers of width {width}, found {reader.weight.shape[1]}")
            if id(weight) in seen or id(weight) in tensors:
                raise ValueError("norms: a weight has two uses (tied to another layer?); give each its own")
            seen.add(id(weight))
    for tensor, axis in tensors.values():
        if width is not None and tensor.shape[axis] != width:
            raise ValueError(f"writers: expected width {width}, found shape {list(tensor.shape)}")


def _take(norm: nn.LayerNorm, reader: _Affine) -> None:
    """Moves the norm's weight and bias into the layer that reads it."""
    matrix = reader.weight.double()
    if norm.bias is not None:
        shift = matrix @ norm.bias.double()
        if reader.bias is not None:
            reader.bias.copy_(reader.bias.double() + shift)
        elif reader.bias_name is not None:
            setattr(reader.owner, reader.bias_name, nn.Parameter(shift.to(reader.weight.dtype)))
    if norm.weight is not None:
        reader.weight.copy_(matrix * norm.weight.double())
