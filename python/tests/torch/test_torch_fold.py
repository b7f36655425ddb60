"""Pre-LN to Pre-RMSNorm: the same outputs."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import normkit.torch as nk


class Block(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width, bias), nn.Linear(4 * width, width, bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Model(nn.Module):
    def __init__(self, width: int = 16, depth: int = 3, bias: bool = True) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, width)
        self.positions = nn.Parameter(torch.randn(1, 7, width) + 0.5)
        self.blocks = nn.ModuleList(Block(width, bias) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5, bias)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def stirred(model: nn.Module) -> nn.Module:
    """Parameters that no fold could get right by luck: norms far from 1 and 0, means far from 0."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3 + 0.1)
    return model


def fold(model: Model) -> None:
    blocks = list(model.blocks)
    nk.fold_pre_ln(
        norms=[(b.norm1, [b.qkv]) for b in blocks]
        + [(b.norm2, [b.fc1]) for b in blocks]
        + [(model.norm, [model.head])],
        writers=[model.tokens, model.positions] + [b.proj for b in blocks] + [b.fc2 for b in blocks],
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=str)
def test_folding_changes_no_output(bias: bool, dtype: torch.dtype, tolerance: float) -> None:
    model = stirred(Model(bias=bias)).to(dtype)
    ids = torch.randint(11, (4, 7))
    right = model(ids)
    fold(model)
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm | nn.RMSNorm)]
    assert [type(norm) for norm in norms] == [nk.RMSNorm] * 7
    assert not [name for name, _ in model.named_parameters() if "norm" in name]
    torch.testing.assert_close(model(ids), right, rtol=0, atol=tolerance * float(right.detach().abs().max()))
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict())
    twin(ids).sum().backward()
    assert all(parameter.grad is not None for parameter in twin.parameters())


def test_leaving_out_a_writer_is_seen() -> None:
    """That the test above can fail."""
    model = stirred(Model()).double()
    ids = torch.randint(11, (4, 7))
    right = model(ids)
    blocks = list(model.blocks)
    nk.fold_pre_ln([(b.norm1, [b.qkv]) for b in blocks], [model.tokens, model.positions])
    assert not torch.allclose(model(ids), right, rtol=1e-3, atol=1e-3)


def test_torchs_own_encoder() -> None:
    """nn.TransformerEncoderLayer with norm_first, whose attention has one projection for q, k and v."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, norm_first=True, batch_first=True)
    encoder = stirred(nn.TransformerEncoder(layer, 2, nn.LayerNorm(16), enable_nested_tensor=False)).double()
    embed, head = stirred(nn.Linear(3, 16)).double(), stirred(nn.Linear(16, 2)).double()
    x = torch.randn(4, 6, 3, dtype=torch.float64)
    right = head(encoder(embed(x)))
    layers = list(encoder.layers)
    nk.fold_pre_ln(
        [(n.norm1, [n.self_attn]) for n in layers]
        + [(n.norm2, [n.linear1]) for n in layers]
        + [(encoder.norm, [head])],
        [embed] + [n.self_attn.out_proj for n in layers] + [n.linear2 for n in layers],
    )
    torch.testing.assert_close(head(encoder(embed(x))), right, rtol=0, atol=1e-11)


def test_gpt2_of_transformers() -> None:
    import transformers

    config = transformers.GPT2Config(
        vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=12, tie_word_embeddings=False
    )
    model = stirred(transformers.GPT2LMHeadModel(config)).double().eval()
    ids = torch.randint(50, (2, 9))
    right = model(ids).logits.detach()
    blocks, body = list(model.transformer.h), model.transformer
    nk.fold_pre_ln(
        [(b.ln_1, [b.attn.c_attn]) for b in blocks]
        + [(b.ln_2, [b.mlp.c_fc]) for b in blocks]
        + [(body.ln_f, [model.lm_head])],
        [body.wte, body.wpe] + [b.attn.c_proj for b in blocks] + [b.mlp.c_proj for b in blocks],
    )
    torch.testing.assert_close(model(ids).logits, right, rtol=0, atol=1e-10 * float(right.abs().max()))


def test_a_tied_head_is_refused_before_anything_changes() -> None:
    embed, norm, head = nn.Embedding(11, 8), nn.LayerNorm(8), nn.Linear(8, 11, False)
    head.weight = embed.weight
    before = embed.weight.detach().clone()
    with pytest.raises(ValueError, match="two uses"):
        nk.fold_pre_ln([(norm, [head])], [embed])
    assert torch.equal(embed.weight, before)
    assert type(norm) is nn.LayerNorm


def test_wrong_parts_are_refused() -> None:
    norm, linear = nn.LayerNorm(8), nn.Linear(8, 4)
    with pytest.raises(TypeError, match="reader"):
        nk.fold_pre_ln([(norm, [nn.GELU()])], [])
    with pytest.raises(TypeError, match="writers"):
        nk.fold_pre_ln([(norm, [linear])], [nn.GELU()])
    with pytest.raises(TypeError, match="norms"):
        nk.fold_pre_ln([(nn.GroupNorm(2, 8), [linear])], [])
    with pytest.raises(ValueError, match="readers of width"):
        nk.fold_pre_ln([(norm, [nn.Linear(7, 4)])], [])
    with pytest.raises(ValueError, match="writers: expected width"):
        nk.fold_pre_ln([(norm, [linear])], [nn.Linear(8, 4)])
    with pytest.raises(ValueError, match="needs the layers"):
        nk.fold_pre_ln([(norm, [])], [])
    with pytest.raises(ValueError, match="two uses"):
        nk.fold_pre_ln([(norm, [linear]), (nn.LayerNorm(8), [linear])], [])
    assert type(norm) is nn.LayerNorm
