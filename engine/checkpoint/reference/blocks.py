"""Independent decoding of every storage format: random blocks and the numbers they stand for.

Regenerate (Python 3.11, numpy 2; with the `gguf` package installed its decoder must agree):
    python engine/checkpoint/reference/blocks.py
"""

import json
from pathlib import Path

import numpy as np

OUTPUT = Path(__file__).parent / "blocks.json"
BLOCKS = 3


def halves(block, *offsets):
    return [float(np.frombuffer(block[o : o + 2], "<f2")[0]) for o in offsets]


def bit_list(data, width):
    """All fields of `width` bits, lowest first within a byte, as [byte][field]."""
    data = np.frombuffer(data, np.uint8)
    return np.stack([(data >> shift) & (2**width - 1) for shift in range(0, 8, width)], axis=1).astype(np.float64)


def nibbles32(data):
    """16 bytes: the low nibbles, then the high ones."""
    return bit_list(data, 4).T.ravel()


def q8_0(b):
    return halves(b, 0)[0] * np.frombuffer(b[2:], np.int8)


def q4_0(b):
    return halves(b, 0)[0] * (nibbles32(b[2:]) - 8)


def q4_1(b):
    d, m = halves(b, 0, 2)
    return d * nibbles32(b[4:]) + m


def q5_0(b):
    return halves(b, 0)[0] * (nibbles32(b[6:]) + 16 * bit_list(b[2:6], 1).ravel() - 16)


def q5_1(b):
    d, m = halves(b, 0, 2)
    return d * (nibbles32(b[8:]) + 16 * bit_list(b[4:8], 1).ravel()) + m


def k_scales(packed):
    """Twelve bytes seen as one number of 96 bits; see the layout comment of the Rust decoder."""
    low6 = [byte & 63 for byte in packed[:8]]
    top2 = [byte >> 6 for byte in packed[:8]]
    scales = low6[:4] + [(packed[8 + j] & 15) + 16 * top2[j] for j in range(4)]
    mins = low6[4:] + [(packed[8 + j] >> 4) + 16 * top2[4 + j] for j in range(4)]
    return np.repeat(scales, 32).astype(np.float64), np.repeat(mins, 32).astype(np.float64)


def k_nibbles(data):
    return np.concatenate([bit_list(data[i : i + 32], 4).T.ravel() for i in range(0, 128, 32)])


def q4_k(b):
    d, m = halves(b, 0, 2)
    scale, offset = k_scales(b[4:16])
    return d * scale * k_nibbles(b[16:]) - m * offset


def q5_k(b):
    d, m = halves(b, 0, 2)
    scale, offset = k_scales(b[4:16])
    high = bit_list(b[16:48], 1).T.ravel()
    return d * scale * (k_nibbles(b[48:]) + 16 * high) - m * offset


def q6_k(b):
    scale = np.repeat(np.frombuffer(b[192:208], np.int8), 16).astype(np.float64)
    low = np.concatenate([bit_list(b[i : i + 64], 4).T.ravel() for i in (0, 64)])
    high = np.concatenate([bit_list(b[i : i + 32], 2).T.ravel() for i in (128, 160)])
    return halves(b, 208)[0] * scale * (low + 16 * high - 32)


def f32(b):
    return np.frombuffer(b, "<f4").astype(np.float64)


def f16(b):
    return np.frombuffer(b, "<f2").astype(np.float64)


def bf16(b):
    return (np.frombuffer(b, "<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)


# Name: bytes per block, offsets of f16 fields (kept finite), decoder.
FORMATS = {
    "F32": (4, [], f32),
    "F16": (2, [0], f16),
    "BF16": (2, [], bf16),
    "Q8_0": (34, [0], q8_0),
    "Q4_0": (18, [0], q4_0),
    "Q4_1": (20, [0, 2], q4_1),
    "Q5_0": (22, [0], q5_0),
    "Q5_1": (24, [0, 2], q5_1),
    "Q4K": (144, [0, 2], q4_k),
    "Q5K": (176, [0, 2], q5_k),
    "Q6K": (210, [208], q6_k),
}


def random_block(random, size, half_offsets):
    block = bytearray(random.bytes(size))
    for offset in half_offsets:
        block[offset : offset + 2] = np.float16(random.normal()).tobytes()
    if size == 4:
        block[:] = np.float32(random.normal()).tobytes()
    if size == 2 and not half_offsets:
        block[:] = np.float32(random.normal()).tobytes()[2:]
    return bytes(block)


def agree_with_gguf(name, data, elements):
    """True if the package's decoder gives the same, None without the package."""
    try:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError:
        return None
    kind = GGMLQuantizationType[name.replace("K", "_K")]
    theirs = dequantize(np.frombuffer(data, np.uint8), kind) if name not in ("F32", "F16") else elements
    assert np.allclose(theirs, elements, rtol=1e-5, atol=1e-6), name
    return True


if __name__ == "__main__":
    random = np.random.default_rng(1)
    lines = []
    for name, (size, offsets, decode) in FORMATS.items():
        blocks = [random_block(random, size, offsets) for _ in range(BLOCKS)]
        elements = np.concatenate([decode(block) for block in blocks])
        print(name, len(elements), "agrees with gguf:", agree_with_gguf(name, b"".join(blocks), elements))
        entry = {"bytes": b"".join(blocks).hex(), "elements": elements.astype(np.float32).astype(float).tolist()}
        entry["elements"] = [float(f"{value:.9g}") for value in entry["elements"]]
        lines.append(f"{json.dumps(name)}: {json.dumps(entry)}")
    OUTPUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")
