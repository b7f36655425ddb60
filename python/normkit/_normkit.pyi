"""Types of the extension. The docstrings are the extension's own: ``help(normkit.layer_norm)``."""

from collections.abc import Sequence
from typing import (
    Any,
    Literal,
    Protocol,
    SupportsFloat,
    SupportsIndex,
    TypeAlias,
    TypeVar,
    final,
    type_check_only,
)

__version__: str

@type_check_only
class SupportsDLPack(Protocol):
    """An array of NumPy, PyTorch, JAX, CuPy, or of any other library that offers DLPack."""

    def __dlpack__(self) -> Any: ...

Array = TypeVar("Array", bound=SupportsDLPack)
Keys = TypeVar("Keys", bound=SupportsDLPack)
Statistics: TypeAlias = Any
Shape: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
Backend: TypeAlias = Literal["cpu", "wgpu", "cuda", "cuda-host"]
Cast: TypeAlias = Literal["fp32", "llama", "gemma"]
HeadKind: TypeAlias = Literal["rms", "l2", "layer"]
# Or the dtype of that name of NumPy, ml_dtypes or PyTorch.
CodeDType: TypeAlias = Literal["int8", "float8_e4m3fn", "float8_e5m2"] | Any
Activation: TypeAlias = Literal["relu", "silu", "gelu", "gelu_tanh"]

def layer_norm(
    input: Array,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    eps: SupportsFloat = 1e-5,
    *,
    activation: Activation | None = None,
    backend: Backend | None = None,
) -> Array: ...
def rms_norm(
    input: Array,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    eps: SupportsFloat | None = None,
    *,
    offset: SupportsFloat = 0.0,
    cast: Cast = "fp32",
    partial: SupportsFloat = 1.0,
    activation: Activation | None = None,
    backend: Backend | None = None,
) -> Array: ...
def batch_norm(
    input: Array,
    running_mean: SupportsDLPack | None,
    running_var: SupportsDLPack | None,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    training: bool = False,
    momentum: SupportsFloat = 0.1,
    eps: SupportsFloat = 1e-5,
    *,
    backend: Backend | None = None,
) -> Array: ...
def group_norm(
    input: Array,
    num_groups: SupportsIndex,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    eps: SupportsFloat = 1e-5,
    *,
    activation: Activation | None = None,
    backend: Backend | None = None,
) -> Array: ...
def instance_norm(
    input: Array,
    running_mean: SupportsDLPack | None = None,
    running_var: SupportsDLPack | None = None,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    use_input_stats: bool = True,
    momentum: SupportsFloat = 0.1,
    eps: SupportsFloat = 1e-5,
    *,
    backend: Backend | None = None,
) -> Array: ...
def normalize(
    input: Array,
    p: SupportsFloat = 2.0,
    dim: SupportsIndex = 1,
    eps: SupportsFloat = 1e-12,
    *,
    backend: Backend | None = None,
) -> Array: ...
def dyt(
    input: Array,
    alpha: SupportsDLPack | SupportsFloat,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    *,
    backend: Backend | None = None,
) -> Array: ...
def qk_norm(
    q: Array,
    k: Keys,
    q_weight: SupportsDLPack | None = None,
    k_weight: SupportsDLPack | None = None,
    eps: SupportsFloat = 1e-6,
    *,
    kind: HeadKind = "rms",
    backend: Backend | None = None,
) -> tuple[Array, Keys]: ...
def qk_norm_rope(
    q: Array,
    k: Keys,
    cos: SupportsDLPack,
    sin: SupportsDLPack,
    positions: SupportsDLPack | None = None,
    q_weight: SupportsDLPack | None = None,
    k_weight: SupportsDLPack | None = None,
    eps: SupportsFloat = 1e-6,
    *,
    kind: HeadKind = "rms",
    interleaved: bool = False,
    backend: Backend | None = None,
) -> tuple[Array, Keys]: ...
def hypersphere_step(
    input: Array,
    branch: SupportsDLPack,
    alpha: SupportsDLPack,
    eps: SupportsFloat = 1e-12,
    *,
    alpha_scale: SupportsFloat = 1.0,
    backend: Backend | None = None,
) -> Array: ...
def weight_norm(
    v: Array,
    g: SupportsDLPack,
    dim: SupportsIndex | None = 0,
    *,
    backend: Backend | None = None,
) -> Array: ...
def add_layer_norm(
    input: Array,
    residual: SupportsDLPack,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    eps: SupportsFloat = 1e-5,
    *,
    input_scale: SupportsFloat = 1.0,
    residual_scale: SupportsFloat = 1.0,
    branch_bias: SupportsDLPack | None = None,
    branch_scale: SupportsDLPack | None = None,
    dropout_p: SupportsFloat = 0.0,
    dropout_seed: SupportsIndex = 0,
    dropout_offset: SupportsIndex = 0,
    backend: Backend | None = None,
) -> tuple[Array, Array]: ...
def add_rms_norm(
    input: Array,
    residual: SupportsDLPack,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    eps: SupportsFloat | None = None,
    *,
    offset: SupportsFloat = 0.0,
    cast: Cast = "fp32",
    input_scale: SupportsFloat = 1.0,
    residual_scale: SupportsFloat = 1.0,
    branch_bias: SupportsDLPack | None = None,
    branch_scale: SupportsDLPack | None = None,
    dropout_p: SupportsFloat = 0.0,
    dropout_seed: SupportsIndex = 0,
    dropout_offset: SupportsIndex = 0,
    backend: Backend | None = None,
) -> tuple[Array, Array]: ...
def layer_norm_add(
    input: Array,
    residual: SupportsDLPack,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    eps: SupportsFloat = 1e-5,
    *,
    backend: Backend | None = None,
) -> Array: ...
def rms_norm_add(
    input: Array,
    residual: SupportsDLPack,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    eps: SupportsFloat | None = None,
    *,
    offset: SupportsFloat = 0.0,
    cast: Cast = "fp32",
    backend: Backend | None = None,
) -> Array: ...
def layer_norm_add_layer_norm(
    input: Array,
    residual: SupportsDLPack,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    next_weight: SupportsDLPack | None = None,
    next_bias: SupportsDLPack | None = None,
    eps: SupportsFloat = 1e-5,
    *,
    backend: Backend | None = None,
) -> tuple[Array, Array]: ...
def rms_norm_add_rms_norm(
    input: Array,
    residual: SupportsDLPack,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    next_weight: SupportsDLPack | None = None,
    eps: SupportsFloat | None = None,
    *,
    offset: SupportsFloat = 0.0,
    cast: Cast = "fp32",
    backend: Backend | None = None,
) -> tuple[Array, Array]: ...
def outlier_codes(
    input: SupportsDLPack,
    residual: SupportsDLPack | None,
    weight: SupportsDLPack | None,
    bias: SupportsDLPack | None,
    normalized_shape: Shape,
    centred: bool,
    eps: SupportsFloat | None,
    offset: SupportsFloat,
    cast: Cast,
    input_scale: SupportsFloat,
    residual_scale: SupportsFloat,
    threshold: SupportsFloat,
    backend: Backend | None,
) -> tuple[Any, Any, Any, Any, Any]: ...
def outlier_values(
    input: SupportsDLPack,
    residual: SupportsDLPack | None,
    weight: SupportsDLPack | None,
    bias: SupportsDLPack | None,
    normalized_shape: Shape,
    centred: bool,
    eps: SupportsFloat | None,
    offset: SupportsFloat,
    cast: Cast,
    input_scale: SupportsFloat,
    residual_scale: SupportsFloat,
    threshold: SupportsFloat,
    statistics: SupportsDLPack,
    columns: Sequence[int],
    backend: Backend | None,
) -> Any: ...
def rms_norm_quant(
    input: SupportsDLPack,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    eps: SupportsFloat | None = None,
    *,
    dtype: CodeDType = "int8",
    scale: SupportsFloat | None = None,
    block_size: SupportsIndex | None = None,
    upper_bound: SupportsFloat | None = None,
    offset: SupportsFloat = 0.0,
    cast: Cast = "fp32",
    backend: Backend | None = None,
) -> tuple[Any, Any]: ...
def layer_norm_quant(
    input: SupportsDLPack,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    eps: SupportsFloat = 1e-5,
    *,
    dtype: CodeDType = "int8",
    scale: SupportsFloat | None = None,
    block_size: SupportsIndex | None = None,
    upper_bound: SupportsFloat | None = None,
    backend: Backend | None = None,
) -> tuple[Any, Any]: ...
def add_rms_norm_quant(
    input: SupportsDLPack,
    residual: SupportsDLPack,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    eps: SupportsFloat | None = None,
    *,
    dtype: CodeDType = "int8",
    scale: SupportsFloat | None = None,
    block_size: SupportsIndex | None = None,
    upper_bound: SupportsFloat | None = None,
    offset: SupportsFloat = 0.0,
    cast: Cast = "fp32",
    input_scale: SupportsFloat = 1.0,
    residual_scale: SupportsFloat = 1.0,
    backend: Backend | None = None,
) -> tuple[Any, Any, Any]: ...
def add_layer_norm_quant(
    input: SupportsDLPack,
    residual: SupportsDLPack,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    eps: SupportsFloat = 1e-5,
    *,
    dtype: CodeDType = "int8",
    scale: SupportsFloat | None = None,
    block_size: SupportsIndex | None = None,
    upper_bound: SupportsFloat | None = None,
    input_scale: SupportsFloat = 1.0,
    residual_scale: SupportsFloat = 1.0,
    backend: Backend | None = None,
) -> tuple[Any, Any, Any]: ...
def modulated_layer_norm(
    input: Array,
    scale: SupportsDLPack,
    shift: SupportsDLPack,
    eps: SupportsFloat = 1e-6,
    *,
    backend: Backend | None = None,
) -> Array: ...
def modulated_rms_norm(
    input: Array,
    scale: SupportsDLPack,
    shift: SupportsDLPack | None = None,
    eps: SupportsFloat = 1e-6,
    *,
    backend: Backend | None = None,
) -> Array: ...
def gated_rms_norm(
    input: Array,
    gate: SupportsDLPack,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    eps: SupportsFloat = 1e-5,
    *,
    group_size: SupportsIndex | None = None,
    norm_before_gate: bool = True,
    backend: Backend | None = None,
) -> Array: ...
def backends() -> list[str]: ...
def devices() -> list[dict[str, str]]: ...
def batch_norm_train(
    input: Array,
    running_mean: SupportsDLPack | None,
    running_var: SupportsDLPack | None,
    momentum: SupportsFloat,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    eps: SupportsFloat = 1e-5,
) -> tuple[Array, Statistics]: ...
def batch_norm_frozen(
    input: Array,
    running_mean: SupportsDLPack,
    running_var: SupportsDLPack,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    eps: SupportsFloat = 1e-5,
) -> Array: ...
def batch_norm_frozen_backward(
    grad_output: Array,
    input: Array,
    running_mean: SupportsDLPack,
    running_var: SupportsDLPack,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    eps: SupportsFloat = 1e-5,
    needs: SupportsIndex = 7,
) -> tuple[Array | None, Any | None, Any | None]: ...
def instance_norm_train(
    input: Array,
    running_mean: SupportsDLPack | None,
    running_var: SupportsDLPack | None,
    momentum: SupportsFloat,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    eps: SupportsFloat = 1e-5,
) -> tuple[Array, Statistics]: ...
@final
class Norm:
    @staticmethod
    def layer_norm(normalized_shape: Shape, eps: SupportsFloat = 1e-5) -> Norm: ...
    @staticmethod
    def rms_norm(
        normalized_shape: Shape,
        eps: SupportsFloat | None = None,
        offset: SupportsFloat = 0.0,
        cast: Cast = "fp32",
        partial: SupportsFloat = 1.0,
    ) -> Norm: ...
    @staticmethod
    def batch_norm(num_features: SupportsIndex, eps: SupportsFloat = 1e-5) -> Norm: ...
    @staticmethod
    def group_norm(
        num_groups: SupportsIndex, num_channels: SupportsIndex, eps: SupportsFloat = 1e-5
    ) -> Norm: ...
    @staticmethod
    def instance_norm(num_features: SupportsIndex, eps: SupportsFloat = 1e-5) -> Norm: ...
    @staticmethod
    def normalize(p: SupportsFloat = 2.0, dim: SupportsIndex = 1, eps: SupportsFloat = 1e-12) -> Norm: ...
    @staticmethod
    def dyt(normalized_shape: Shape) -> Norm: ...
    @staticmethod
    def head_norm(kind: HeadKind, eps: SupportsFloat = 1e-6) -> Norm: ...
    @staticmethod
    def head_norm_rope(kind: HeadKind, eps: SupportsFloat = 1e-6, interleaved: bool = False) -> Norm: ...
    @staticmethod
    def weight_norm(dim: SupportsIndex | None) -> Norm: ...
    @staticmethod
    def modulated(cols: SupportsIndex, eps: SupportsFloat = 1e-6, centred: bool = True) -> Norm: ...
    @staticmethod
    def gated_rms_norm(
        cols: SupportsIndex,
        eps: SupportsFloat = 1e-5,
        group_size: SupportsIndex | None = None,
        norm_before_gate: bool = True,
    ) -> Norm: ...
    def fused(
        self,
        before: Literal["residual"] | None = None,
        after: Literal["residual"] | None = None,
        activation: Activation | None = None,
        input_scale: SupportsFloat = 1.0,
        residual_scale: SupportsFloat = 1.0,
        dropout_p: SupportsFloat = 0.0,
        dropout_seed: SupportsIndex = 0,
        dropout_offset: SupportsIndex = 0,
    ) -> Norm: ...
    def forward(
        self,
        input: Array,
        weight: SupportsDLPack | None = None,
        bias: SupportsDLPack | None = None,
        alpha: SupportsDLPack | None = None,
        before: SupportsDLPack | None = None,
        after: SupportsDLPack | None = None,
        cos: SupportsDLPack | None = None,
        sin: SupportsDLPack | None = None,
        positions: SupportsDLPack | None = None,
    ) -> Array: ...
    def heads(
        self,
        q: Array,
        k: Array,
        q_weight: SupportsDLPack | None = None,
        k_weight: SupportsDLPack | None = None,
        cos: SupportsDLPack | None = None,
        sin: SupportsDLPack | None = None,
        positions: SupportsDLPack | None = None,
    ) -> tuple[Array, Array]: ...
    def train(
        self,
        input: Array,
        weight: SupportsDLPack | None = None,
        bias: SupportsDLPack | None = None,
        alpha: SupportsDLPack | None = None,
        before: SupportsDLPack | None = None,
        after: SupportsDLPack | None = None,
        cos: SupportsDLPack | None = None,
        sin: SupportsDLPack | None = None,
        positions: SupportsDLPack | None = None,
    ) -> tuple[Array, Statistics | None]: ...
    def hidden(
        self,
        input: Array,
        weight: SupportsDLPack | None = None,
        bias: SupportsDLPack | None = None,
        alpha: SupportsDLPack | None = None,
        before: SupportsDLPack | None = None,
        after: SupportsDLPack | None = None,
        statistics: bool = True,
        branch_bias: SupportsDLPack | None = None,
        branch_scale: SupportsDLPack | None = None,
    ) -> tuple[Array, Array, Statistics | None]: ...
    def backward(
        self,
        grad_output: Array,
        input: Array,
        statistics: SupportsDLPack | None,
        weight: SupportsDLPack | None = None,
        bias: SupportsDLPack | None = None,
        alpha: SupportsDLPack | None = None,
        before: SupportsDLPack | None = None,
        after: SupportsDLPack | None = None,
        grad_hidden: SupportsDLPack | None = None,
        needs: SupportsIndex = 255,
        cos: SupportsDLPack | None = None,
        sin: SupportsDLPack | None = None,
        positions: SupportsDLPack | None = None,
        branch_bias: SupportsDLPack | None = None,
        branch_scale: SupportsDLPack | None = None,
    ) -> tuple[
        Array | None,
        Any | None,
        Any | None,
        Any | None,
        Any | None,
        Any | None,
        Any | None,
        Any | None,
    ]: ...
    def rows(self, shape: Shape) -> int: ...
@final
class Sandwich:
    @staticmethod
    def rms_norm(
        normalized_shape: Shape,
        eps: SupportsFloat | None = None,
        offset: SupportsFloat = 0.0,
        cast: Cast = "fp32",
    ) -> Sandwich: ...
    @staticmethod
    def layer_norm(normalized_shape: Shape, eps: SupportsFloat = 1e-5) -> Sandwich: ...
    def forward(
        self,
        input: Array,
        residual: SupportsDLPack,
        weight: SupportsDLPack | None = None,
        bias: SupportsDLPack | None = None,
        next_weight: SupportsDLPack | None = None,
        next_bias: SupportsDLPack | None = None,
        statistics: bool = True,
    ) -> tuple[Array, Array, Statistics | None]: ...
    def backward(
        self,
        grad_output: Array,
        input: Array,
        residual: SupportsDLPack,
        statistics: SupportsDLPack,
        weight: SupportsDLPack | None = None,
        bias: SupportsDLPack | None = None,
        next_weight: SupportsDLPack | None = None,
        next_bias: SupportsDLPack | None = None,
        grad_hidden: SupportsDLPack | None = None,
        needs: SupportsIndex = 63,
    ) -> tuple[Array | None, Any | None, Any | None, Any | None, Any | None, Any | None]: ...
@final
class HypersphereStep:
    @staticmethod
    def of(eps: SupportsFloat = 1e-12, alpha_scale: SupportsFloat = 1.0) -> HypersphereStep: ...
    def forward(self, input: Array, alpha: SupportsDLPack, branch: SupportsDLPack) -> Array: ...
    def train(
        self, input: Array, alpha: SupportsDLPack, branch: SupportsDLPack
    ) -> tuple[Array, Statistics]: ...
    def backward(
        self,
        grad_output: Array,
        input: Array,
        statistics: SupportsDLPack,
        alpha: SupportsDLPack,
        branch: SupportsDLPack,
        needs: SupportsIndex = 7,
    ) -> tuple[Array | None, Any | None, Any | None]: ...
