"""The adapter of a PocketLLM folder, from docs/format.md, "Adapters"; for read_pocketllm.py."""
import json
import math
import pathlib

import numpy as np


def read_adapter(path, bits, stored, unpack):
    """What the adapter adds to each matrix; takes its tensors out of `stored`."""
    config = json.loads((pathlib.Path(path) / "adapter_config.json").read_bytes())
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config["use_rslora"] else config["r"])
    sides = {}
    for name in [name for name in stored if name.endswith((".lora_A.weight", ".lora_B.weight"))]:
        sides[name.removesuffix(".weight")] = stored.pop(name).astype(np.float64)
    for name in [name for name in stored if name.endswith((".lora_A.codes", ".lora_B.codes"))]:
        side, codes = name.removesuffix(".codes"), stored.pop(name)
        scales = stored.pop(f"{side}.scales").astype(np.float64)
        columns = config["r"] if side.endswith("B") else codes.shape[1] * 8 // bits
        sides[side] = np.stack([unpack(row, bits, columns) for row in codes])
        sides[side] = (sides[side] - 2 ** (bits - 1)) * scales[:, None]
    layers = [side.removesuffix(".lora_A") for side in sides if side.endswith("A")]
    return {
        layer.removeprefix("base_model.model."): scale * sides[f"{layer}.lora_B"] @ sides[f"{layer}.lora_A"]
        for layer in layers
    }
