"""
Gradients of models/pocket-stories by PyTorch's automatic differentiation: what torch-gradients.test.ts compares
ours with. Shares no code with this project: the safetensors file is read here, and the forward pass is written
here in plain torch, in float64 on the stored weights. The fixture was made with torch 2.15.0.

    python3 -m venv /tmp/torch-venv && /tmp/torch-venv/bin/pip install torch numpy
    /tmp/torch-venv/bin/python test/torch/gradients.py && npm run format

Rewrites src/transformer/torch-gradients.fixture.json: token ids, mean next-token cross-entropy in nats, and for
every tensor the norm of its gradient and the largest element of each of its quarters [index, value].
"""

import json
import math
import struct
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "pocket-stories"
FIXTURE = ROOT / "src" / "transformer" / "torch-gradients.fixture.json"
TOKENS = 64
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


def read_safetensors(path):
    """Every tensor of the file in float64: 8 bytes of length, a JSON header, then the data."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    data = bytearray(raw[8 + length :])
    tensors = {}
    for name, entry in json.loads(raw[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        flat = torch.frombuffer(data[start:end], dtype=DTYPES[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"]).to(torch.float64)
    return tensors


def token_ids(vocabulary):
    """Numerical Recipes' generator; of a quarter of the vocabulary, so that some ids come twice."""
    state, ids = 1, []
    for _ in range(TOKENS):
        state = (state * 1664525 + 1013904223) % 2**32
        ids.append((state >> 8) % (vocabulary // 4))
    return ids


def rms_norm(x, weight, epsilon):
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + epsilon) * weight


def rotate(x, theta):
    """x [heads, tokens, size]: element i turns with i + size / 2."""
    _, tokens, size = x.shape
    frequencies = theta ** (-2 * torch.arange(size // 2, dtype=torch.float64) / size)
    angles = torch.outer(torch.arange(tokens, dtype=torch.float64), frequencies)
    first, second = x[..., : size // 2], x[..., size // 2 :]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def logits_of(weights, config, ids):
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    size = config["head_dim"]
    epsilon, theta = config["rms_norm_eps"], config["rope_theta"]
    tokens = len(ids)
    future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    hidden = weights["model.embed_tokens.weight"][torch.tensor(ids)]
    for layer in range(config["num_hidden_layers"]):
        part = lambda name: weights[f"model.layers.{layer}.{name}.weight"]
        x = rms_norm(hidden, part("input_layernorm"), epsilon)
        split = lambda name, count: (x @ part(f"self_attn.{name}_proj").T).view(tokens, count, size).transpose(0, 1)
        query = rotate(split("q", heads), theta)
        key = rotate(split("k", kv_heads), theta).repeat_interleave(heads // kv_heads, 0)
        value = split("v", kv_heads).repeat_interleave(heads // kv_heads, 0)
        scores = (query @ key.transpose(1, 2) / math.sqrt(size)).masked_fill(future, -math.inf)
        attended = (scores.softmax(-1) @ value).transpose(0, 1).reshape(tokens, heads * size)
        hidden = hidden + attended @ part("self_attn.o_proj").T
        x = rms_norm(hidden, part("post_attention_layernorm"), epsilon)
        activated = F.silu(x @ part("mlp.gate_proj").T) * (x @ part("mlp.up_proj").T)
        hidden = hidden + activated @ part("mlp.down_proj").T
    head = weights["model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"]
    return rms_norm(hidden, weights["model.norm.weight"], epsilon) @ head.T


def short(x):
    return float(f"{x:.8g}")


def main():
    config = json.loads((MODEL / "config.json").read_text())
    weights = read_safetensors(MODEL / "model.safetensors")
    for tensor in weights.values():
        tensor.requires_grad_()
    ids = token_ids(config["vocab_size"])
    loss = F.cross_entropy(logits_of(weights, config, ids)[:-1], torch.tensor(ids[1:]))
    loss.backward()
    gradients = {}
    for name in sorted(weights):
        flat = weights[name].grad.reshape(-1)
        elements = []
        for start in range(0, len(flat), len(flat) // 4):
            i = start + flat[start : start + len(flat) // 4].abs().argmax().item()
            elements.append([i, short(flat[i].item())])
        gradients[name] = {"norm": short(flat.norm().item()), "elements": elements}
    fixture = {"model": "models/pocket-stories", "ids": ids, "loss": short(loss.item()), "gradients": gradients}
    FIXTURE.write_text(json.dumps(fixture) + "\n")


main()
