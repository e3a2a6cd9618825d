"""Independent reference of the decoder: last-token logits and greedy tokens of the synthetic models.

It shares no code with the Rust crates: it reads config.json and model.safetensors by itself, makes the
weights again from the seed to check the generator, and computes in float64 with one loop per idea.

Regenerate (Python 3.11, numpy 2):
    cargo run --release -p shoal-checkpoint --example synthetic -- target/synthetic
    python engine/checkpoint/reference/reference.py target/synthetic
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np

SEEDS = {"llama2": 4, "llama3": 6, "linear": 51, "yarn": 11, "smollm": 4, "qwen2": 37, "qwen3": 1, "mistral": 14, "wide": 13}
STEPS = 16
PROMPT_TOKENS = 70
OUTPUT = Path(__file__).parent / "logits"


def read_safetensors(path):
    """Tensors of a bf16 file as float64."""
    raw = path.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + length])
    tensors = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        assert info["dtype"] == "BF16", name
        start, end = info["data_offsets"]
        words = np.frombuffer(raw[8 + length + start : 8 + length + end], "<u2").astype(np.uint32) << 16
        tensors[name] = words.view(np.float32).astype(np.float64).reshape(info["shape"])
    return tensors


def generate(seed, name, shape, tied):
    """The tensor again, from splitmix64 seeded by model and name."""
    stream = 0xCBF29CE484222325
    for byte in name.encode():
        stream = ((stream ^ byte) * 0x100000001B3) & (2**64 - 1)
    with np.errstate(over="ignore"):
        index = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
        z = np.uint64(stream ^ seed) + index * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    unit = (z >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0
    centre, spread = 0.0, np.sqrt(3.0 / shape[-1])
    if "norm" in name:
        centre, spread = 1.0, 0.25
    elif name.endswith(".bias"):
        spread = 0.5
    elif "embed_tokens" in name:
        spread = 0.25 if tied else 1.0
    elif "q_proj" in name or "k_proj" in name:
        spread *= 1.5
    elif "lm_head" in name:
        spread *= 3.0
    return round_to_bf16(centre + spread * unit).reshape(shape)


def round_to_bf16(values):
    """To float32, then to bfloat16, to nearest even; as float64."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) & np.uint64(0xFFFF0000)
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def frequencies(config):
    """Radians per position of each pair, and what multiplies cosine and sine."""
    dim = config["head_dim"]
    freqs = config["rope_theta"] ** (-np.arange(0, dim, 2) / dim)
    scaling = config["rope_scaling"]
    if scaling is None:
        return freqs, 1.0
    factor = scaling["factor"]
    if scaling["rope_type"] == "linear":
        return freqs / factor, 1.0
    original = scaling["original_max_position_embeddings"]
    if scaling["rope_type"] == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        scaled = []
        for freq in freqs:
            wavelength = 2 * np.pi / freq
            if wavelength < original / high:
                scaled.append(freq)
            elif wavelength > original / low:
                scaled.append(freq / factor)
            else:
                smooth = (original / wavelength - low) / (high - low)
                scaled.append((1 - smooth) * freq / factor + smooth * freq)
        return np.array(scaled), 1.0
    assert scaling["rope_type"] == "yarn"

    def dimension_of(rotations):
        return dim * np.log(original / (rotations * 2 * np.pi)) / (2 * np.log(config["rope_theta"]))

    first = max(np.floor(dimension_of(scaling["beta_fast"])), 0)
    last = min(np.ceil(dimension_of(scaling["beta_slow"])), dim - 1)
    if first == last:
        last += 0.001
    ramp = np.clip((np.arange(dim // 2) - first) / (last - first), 0, 1)
    return freqs / factor * ramp + freqs * (1 - ramp), scaling["attention_factor"]


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def rotate(x, angles, scale):
    """x: [token, head, dim]; element i turns with element i + dim/2."""
    cos, sin = np.cos(angles)[:, None, :] * scale, np.sin(angles)[:, None, :] * scale
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def attention(config, q, k, v):
    """q: [token, head, dim]; k, v: [token, kv head, dim]. Causal, optionally windowed."""
    tokens, heads, dim = q.shape
    group = heads // k.shape[1]
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    out = np.zeros_like(q)
    for head in range(heads):
        for token in range(tokens):
            first = 0 if window is None else max(0, token - window + 1)
            keys = k[first : token + 1, head // group]
            scores = keys @ q[token, head] / np.sqrt(dim)
            weights = np.exp(scores - scores.max())
            out[token, head] = weights / weights.sum() @ v[first : token + 1, head // group]
    return out.reshape(tokens, heads * dim)


def forward(config, tensors, ids):
    """Logits of the last token."""
    eps, dim = config["rms_norm_eps"], config["head_dim"]
    freqs, scale = frequencies(config)
    angles = np.arange(len(ids))[:, None] * freqs
    x = tensors["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):

        def weight(name, layer=layer):
            return tensors.get(f"model.layers.{layer}.{name}")

        h = rms_norm(x, weight("input_layernorm.weight"), eps)
        parts = {}
        for part in "qkv":
            parts[part] = h @ weight(f"self_attn.{part}_proj.weight").T
            bias = weight(f"self_attn.{part}_proj.bias")
            if bias is not None:
                parts[part] = parts[part] + bias
            parts[part] = parts[part].reshape(len(ids), -1, dim)
            norm = weight(f"self_attn.{part}_norm.weight")
            if norm is not None:
                parts[part] = rms_norm(parts[part], norm, eps)
        q, k = rotate(parts["q"], angles, scale), rotate(parts["k"], angles, scale)
        x = x + attention(config, q, k, parts["v"]) @ weight("self_attn.o_proj.weight").T
        h = rms_norm(x, weight("post_attention_layernorm.weight"), eps)
        gate, up = h @ weight("mlp.gate_proj.weight").T, h @ weight("mlp.up_proj.weight").T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ weight("mlp.down_proj.weight").T
    head = tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"])
    return head @ rms_norm(x[-1], tensors["model.norm.weight"], eps)


def reference(directory):
    name = directory.name
    config = json.loads((directory / "config.json").read_text())
    tensors = read_safetensors(directory / "model.safetensors")
    for tensor, stored in tensors.items():
        again = generate(SEEDS[name], tensor, stored.shape, config["tie_word_embeddings"])
        assert np.array_equal(stored, again), f"{name}: {tensor} differs from its seed"
    prompt = [(7 * i * i + 3 * i + 11) % config["vocab_size"] for i in range(PROMPT_TOKENS)]
    ids, logits, steps = list(prompt), None, []
    for _ in range(STEPS):
        row = forward(config, tensors, ids)
        logits = row if logits is None else logits
        second, best = np.sort(row)[-2:]
        steps.append({"token": int(row.argmax()), "logit": round(float(best), 6), "margin": round(float(best - second), 6)})
        ids.append(steps[-1]["token"])
    return {
        "model": name,
        "prompt": prompt,
        "logits": [round(float(logit), 6) for logit in logits],
        "greedy": [step["token"] for step in steps],
        "greedy_logits": [step["logit"] for step in steps],
        # How far the second best token is behind at each step.
        "margins": [step["margin"] for step in steps],
        # First elements of some tensors, to check a generator without running this script.
        "elements": {tensor: stored.ravel()[:4].tolist() for tensor, stored in sorted(tensors.items())},
    }


def compact(result):
    """One line per field."""
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in result.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    OUTPUT.mkdir(exist_ok=True)
    for model in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
        result = reference(model)
        (OUTPUT / f"{model.name}.json").write_text(compact(result))
        print(model.name, result["greedy"], "smallest margin", min(result["margins"]))
