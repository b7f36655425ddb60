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
from normkit.torch.fused import (
    add_layer_norm,
    add_rms_norm,
    gated_rms_norm,
    hypersphere_step,
    layer_norm_add,
    layer_norm_add_layer_norm,
    modulated_layer_norm,
    modulated_rms_norm,
    qk_norm_rope,
    rms_norm_add,
    rms_norm_add_rms_norm,
)
from normkit.torch.fused_modules import AddLayerNorm, AddRMSNorm, GatedRMSNorm
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
from normkit.torch.outliers import (
    OutlierFlags,
    add_layer_norm_quant_outliers,
    add_rms_norm_quant_outliers,
    layer_norm_quant_outliers,
    norm_quant_flags,
    rms_norm_quant_outliers,
)
from normkit.torch.quantized import (
    add_layer_norm_quant,
    add_rms_norm_quant,
    layer_norm_quant,
    rms_norm_quant,
)

__all__ = [
    "AddLayerNorm",
    "AddRMSNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Conversion",
    "DyT",
    "GatedRMSNorm",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "Left",
    "OutlierFlags",
    "QKNorm",
    "RMSNorm",
    "Replaced",
    "add_layer_norm",
    "add_layer_norm_quant",
    "add_layer_norm_quant_outliers",
    "add_rms_norm",
    "add_rms_norm_quant",
    "add_rms_norm_quant_outliers",
    "batch_norm",
    "convert",
    "dyt",
    "fold_pre_ln",
    "gated_rms_norm",
    "group_norm",
    "hypersphere_step",
    "instance_norm",
    "layer_norm",
    "layer_norm_add",
    "layer_norm_add_layer_norm",
    "layer_norm_quant",
    "layer_norm_quant_outliers",
    "modulated_layer_norm",
    "modulated_rms_norm",
    "norm_quant_flags",
    "normalize",
    "parametrizations",
    "qk_norm",
    "qk_norm_rope",
    "rms_norm",
    "rms_norm_add",
    "rms_norm_add_rms_norm",
    "rms_norm_quant",
    "rms_norm_quant_outliers",
    "weight_norm",
]
