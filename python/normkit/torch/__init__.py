"""normkit for PyTorch: functions with autograd, modules, and the conversion of models.

    import normkit.torch as nk

    y = nk.layer_norm(x, (768,), weight, bias)      # on tensors, with gradients
    norm = nk.LayerNorm(768)                        # torch's constructor and state_dict
    print(nk.convert(model))                        # replaces a model's norms, keeps its weights

The operators are `torch.ops.normkit.*`.
"""

from __future__ import annotations

from normkit.torch import parametrizations
from normkit.torch.convert import Conversion, Left, Replaced, convert
from normkit.torch.fold import fold_pre_ln
from normkit.torch.functional import (
    add_layer_norm,
    add_rms_norm,
    batch_norm,
    dyt,
    group_norm,
    instance_norm,
    layer_norm,
    normalize,
    qk_norm,
    rms_norm,
    weight_norm,
)
from normkit.torch.modules import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    DyT,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    QKNorm,
    RMSNorm,
)

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Conversion",
    "DyT",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "Left",
    "QKNorm",
    "RMSNorm",
    "Replaced",
    "add_layer_norm",
    "add_rms_norm",
    "batch_norm",
    "convert",
    "dyt",
    "fold_pre_ln",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "normalize",
    "parametrizations",
    "qk_norm",
    "rms_norm",
    "weight_norm",
]
