"""Decodes every matrix of a PocketLLM folder to float32, from docs/format.md alone. Needs numpy.

python3 read_pocketllm.py FOLDER [OUT]: lists the matrices, or writes each as OUT/<name>.f32 (raw, row-major).
"""
import hashlib
import json
import math
import pathlib
import sys

import numpy as np

DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "U8": "u1", "BF16": "<u2"}


class Folder:
    def __init__(self, path):
        self.path = pathlib.Path(path)
        raw = (self.path / "pocketllm.json").read_bytes()
        self.manifest = json.loads(raw)
        if self.manifest["format"] != "pocketllm" or self.manifest["version"] != 1:
            raise ValueError(f"cannot read version {self.manifest['version']}")
        if hashlib.sha256(raw[:-77]).hexdigest() != self.manifest["sha256"]:
            raise ValueError("the manifest is damaged")
        self.headers = {}

    def tensor(self, name):
        entry = self.manifest["tensors"][name]
        with open(self.path / entry["file"], "rb") as file:
            if entry["file"] not in self.headers:
                length = int.from_bytes(file.read(8), "little")
                self.headers[entry["file"]] = 8 + length, json.loads(file.read(length))
            start, header = self.headers[entry["file"]]
            begin, end = header[name]["data_offsets"]
            file.seek(start + begin)
            data = file.read(end - begin)
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise ValueError(f"{name} is damaged")
        values = np.frombuffer(data, DTYPES[entry["dtype"]])
        if entry["dtype"] == "BF16":
            values = (values.astype("<u4") << 16).view("<f4")
        return values.reshape(entry["shape"])

    def matrices(self):
        """Yields (tensor name, float array) for every tensor of the model."""
        coded = set()
        for layer, entry in self.manifest["layers"].items():
            parts = []
            for i, part in enumerate(entry.get("tiers", [entry])):
                prefix = f"{layer}.{i}" if "tiers" in entry else layer
                names = {suffix: f"{prefix}.{suffix}" for suffix in part["tensors"]}
                coded.update(names.values())
                rows = part["rows"][1] - part["rows"][0] if "tiers" in entry else part["rows"]
                stored = {suffix: self.tensor(name) for suffix, name in names.items()}
                parts.append(DECODERS[part["method"]](rows, part["columns"], part["parameters"], stored))
            yield f"{layer}.weight", np.concatenate(parts)
        for name in self.manifest["tensors"]:
            if name not in coded:
                yield name, self.tensor(name)


def unpack(data, bits, count):
    """The first `count` values of a bit stream."""
    stream = np.unpackbits(data, bitorder="little")[: count * bits].reshape(count, bits)
    return stream.astype(np.int64) @ (1 << np.arange(bits))


P = [0.39894094758189624, 0.05052906605816727, 0.00557677117334332, 0.0003271457725057028, 0.000006178996234576764]
Q = [1, 0.2933100786647611, 0.037884281216893544, 0.0027629698892168795, 0.00011862846043268584, 5.333739169819462e-7]


def gelu(x):
    c = np.clip(x, -5, 5)
    return x * (0.5 + c * np.polyval(P[::-1], c * c) / np.polyval(Q[::-1], c * c))


def decode_meta(rows, columns, parameters, stored):
    d, hidden, rln = parameters["d"], parameters["hidden"], parameters["rln"]
    per_row = columns // d
    codes = unpack(stored["codes"], int(math.log2(parameters["k"])), rows * per_row)
    h = stored["codebook"].astype(np.float64)[codes]
    group = np.zeros(rows * per_row, np.int64)
    if rln == "rows":
        group = np.repeat(np.arange(rows), per_row)
    if rln == "columns":
        parts = max(1, math.floor(rows / per_row + 0.5))
        bounds = [i * rows // parts for i in range(parts + 1)]
        part_of_row = np.repeat(np.arange(parts), np.diff(bounds))
        group = (np.arange(per_row) * parts + part_of_row[:, None]).ravel()
    size = np.bincount(group) * d
    numbers = iter(stored["decoder"].astype(np.float64))
    take = lambda *shape: np.fromiter(numbers, np.float64, math.prod(shape)).reshape(shape)
    for block in range(parameters["blocks"]):
        u = h
        if rln != "off":
            weight, bias = take(d), take(d)
            mean = (np.bincount(group, h.sum(1)) / size)[group, None]
            variance = (np.bincount(group, ((h - mean) ** 2).sum(1)) / size)[group, None]
            u = (h - mean) / np.sqrt(variance + 1e-5) * weight + bias
        w1, b1, w2, b2 = take(hidden, d), take(hidden), take(d, hidden), take(d)
        h = gelu(u @ w1.T + b1) @ w2.T + b2 + (h if block > 0 else 0)
    mean, inverse = stored["statistics"].astype(np.float64)[group if parameters["groupScale"] else group * 0].T
    return (mean[:, None] + h / inverse[:, None]).reshape(rows, columns)


DECODERS = {"meta": decode_meta}


def main(path, out=None):
    for name, values in Folder(path).matrices():
        if out is None:
            print(name, list(values.shape))
        else:
            (pathlib.Path(out) / f"{name}.f32").write_bytes(values.astype("<f4").tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
