"""Decodes every matrix of a PocketLLM folder, from docs/format.md alone. Needs numpy.

python3 read_pocketllm.py FOLDER OUT: writes each as OUT/<name>.f32, raw float32, row-major."""
import hashlib
import itertools
import json
import math
import pathlib
import sys

import numpy as np
from read_adapter import read_adapter


def read_folder(path):
    """Yields (name, float array) for every tensor of the model."""
    raw = (pathlib.Path(path) / "pocketllm.json").read_bytes()
    manifest = json.loads(raw)
    if (manifest["format"], manifest["version"]) != ("pocketllm", 1):
        raise ValueError(f"cannot read version {manifest['version']}")
    if hashlib.sha256(raw[:-77]).hexdigest() != manifest["sha256"]:
        raise ValueError("the manifest is damaged")
    stored = {name: read_tensor(path, name, entry) for name, entry in manifest["tensors"].items()}
    adapter = read_adapter(path, manifest["adapter"]["bits"], stored, unpack) if "adapter" in manifest else {}
    for layer, entry in manifest["layers"].items():
        parts = []
        for i, part in enumerate(entry.get("tiers", [entry])):
            prefix = f"{layer}.{i}" if "tiers" in entry else layer
            rows = part["rows"][1] - part["rows"][0] if "tiers" in entry else part["rows"]
            own = {suffix: stored.pop(f"{prefix}.{suffix}") for suffix in part["tensors"]}
            parts.append(DECODERS[part["method"]](rows, part["columns"], part["parameters"], own))
        yield f"{layer}.weight", np.concatenate(parts) + adapter.get(layer, 0)
    yield from ((name, values + adapter.get(name.removesuffix(".weight"), 0)) for name, values in stored.items())


def read_tensor(path, name, entry):
    with open(pathlib.Path(path) / entry["file"], "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        begin, end = json.loads(file.read(length))[name]["data_offsets"]
        file.seek(8 + length + begin)
        data = file.read(end - begin)
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ValueError(f"{name} is damaged")
    if entry["dtype"] == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(entry["shape"])
    return np.frombuffer(data, {"F16": "<f2", "U8": "u1"}[entry["dtype"]]).reshape(entry["shape"])


def unpack(data, bits, count):
    """The first `count` values of a bit stream."""
    stream = np.unpackbits(data, bitorder="little")[: count * bits].reshape(count, bits)
    return stream.astype(np.int64) @ (1 << np.arange(bits))


# From the highest power.
P = [0.000006178996234576764, 0.0003271457725057028, 0.00557677117334332, 0.05052906605816727, 0.39894094758189624]
Q = [5.333739169819462e-7, 0.00011862846043268584, 0.0027629698892168795, 0.037884281216893544, 0.2933100786647611, 1]


def gelu(x):
    c = np.clip(x, -5, 5)
    return x * (0.5 + c * np.polyval(P, c * c) / np.polyval(Q, c * c))


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


# By (codeBits, width): the images of the window's 12 bits, in hexadecimal, of the split and the joint maps.
MAPS = {
    (3, 1): ("11224478d559b432470e030a", "1122448dcefec824af29545c"),
    (3, 2): ("112244d40acd1cc8e5050203", "112244b9bcd4685dfa8b1403"),
    (3, 3): ("112244576fdbd67216020c0a", "112244eb46ddb138ca2e1376"),
    (3, 4): ("112244b38a07a93ed2070105", "1122445aa4b44cfa2636f762"),
    (4, 1): ("11224488704080e001090f0c", "11224488f9301c6770fc68db"),
    (4, 2): ("112244880010507003070c01", "11224488e64bcda9c3fd1404"),
    (4, 3): ("11224488e030908004010903", "112244887283776124ae6c2f"),
    (4, 4): ("112244884050b06008050f0b", "11224488e39fb1e04ea4f72b"),
}


def decode_trellis(rows, columns, parameters, stored):
    bits, widths, step = parameters["codeBits"], parameters["widths"], parameters["interleave"]
    codes, tables, at = stored["codes"], {}, 0
    joint = ["split", None].index(parameters.get("maps"))
    for width in sorted(set(widths)):
        a, b = stored["tables"][at : at + 32 * width].astype(np.float64).reshape(2, 16, width)
        tables[width], at = a[np.arange(256) & 15] + b[np.arange(256) >> 4], at + 32 * width
    if bits == 4:
        codes = np.stack([codes & 15, codes >> 4], 1).reshape(-1, rows)
    else:
        codes = np.stack([unpack(group, 3, rows) for group in codes])
    parts, start = [], 0
    for group, width in zip(codes, itertools.cycle(widths)):
        if start >= columns:
            break
        u = np.zeros(rows, np.int64)
        for i, image in enumerate(bytes.fromhex(MAPS[bits, width][joint])):
            age, bit = divmod(i, bits)
            past = np.roll(group, age * step)
            if not parameters["tailBiting"]:
                past[: age * step] = 0
            u ^= (past >> bit & 1).astype(np.int64) * image
        parts.append(tables[width][u])
        start += width
    scales = stored["scales"]
    if scales.dtype == np.uint8:
        least, greatest = scales[:4].view("<f2").astype(np.float64)
        steps = np.maximum(scales[4:].astype(np.float64) - 1, 0) / 254
        scales = np.where(scales[4:] > 0, least * (greatest / max(least, 1e-30)) ** steps, 0)
    return unrotate(np.concatenate(parts, 1)[:, :columns] * scales[:, None], parameters["rotationSeed"])


def unrotate(w, seed):
    rows, columns = w.shape
    order = columns & -columns
    m = columns // order
    hadamard = np.ones((1, 1))
    while len(hadamard) < order:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    angle = np.outer(np.arange(m), np.arange(m)) * 2 * np.pi / m
    q = (np.cos(angle) + np.sin(angle)) / math.sqrt(m)
    w = (q @ (w.reshape(rows, m, order) @ (hadamard / math.sqrt(order)))).reshape(rows, columns)
    h = np.uint32(seed) ^ (np.arange(1, columns + 1, dtype=np.uint32) * np.uint32(0x9E3779B9))
    h = (h ^ h >> 16) * np.uint32(0x85EBCA6B)
    h = (h ^ h >> 13) * np.uint32(0xC2B2AE35)
    return np.where((h ^ h >> 16) >> 31, -w, w)


DECODERS = {"meta": decode_meta, "trellis": decode_trellis}


if __name__ == "__main__":
    for name, values in read_folder(sys.argv[1]):
        (pathlib.Path(sys.argv[2]) / f"{name}.f32").write_bytes(values.astype("<f4").tobytes())
