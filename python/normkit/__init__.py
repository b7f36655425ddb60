"""The normalization family of neural networks, on the CPU, on WebGPU and on CUDA, with the same numbers on each.

Functions take arrays of NumPy, PyTorch, JAX, CuPy or any library with ``__dlpack__`` where they are, without copies, and
return arrays of the same library. Their names, arguments and defaults are those of ``torch.nn.functional`` where it has
the function. ``normkit.torch`` has them with autograd, and modules.

>>> import numpy, normkit
>>> normkit.layer_norm(numpy.float32([[1, 3], [2, 6]]), 2, eps=0.0)
array([[-1.,  1.],
       [-1.,  1.]], dtype=float32)
"""

from normkit._normkit import (
    __version__,
    add_layer_norm,
    add_layer_norm_quant,
    add_rms_norm,
    add_rms_norm_quant,
    backends,
    batch_norm,
    devices,
    dyt,
    gated_rms_norm,
    group_norm,
    hypersphere_step,
    instance_norm,
    layer_norm,
    layer_norm_add,
    layer_norm_add_layer_norm,
    layer_norm_quant,
    modulated_layer_norm,
    modulated_rms_norm,
    normalize,
    qk_norm,
    qk_norm_rope,
    rms_norm,
    rms_norm_add,
    rms_norm_add_rms_norm,
    rms_norm_quant,
    weight_norm,
)
from normkit.outliers import (
    add_layer_norm_quant_outliers,
    add_rms_norm_quant_outliers,
    layer_norm_quant_outliers,
    rms_norm_quant_outliers,
)

__all__ = [
    "__version__",
    "add_layer_norm",
    "add_layer_norm_quant",
    "add_layer_norm_quant_outliers",
    "add_rms_norm",
    "add_rms_norm_quant",
    "add_rms_norm_quant_outliers",
    "backends",
    "batch_norm",
    "devices",
    "dyt",
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
    "normalize",
    "qk_norm",
    "qk_norm_rope",
    "rms_norm",
    "rms_norm_add",
    "rms_norm_add_rms_norm",
    "rms_norm_quant",
    "rms_norm_quant_outliers",
    "weight_norm",
]
