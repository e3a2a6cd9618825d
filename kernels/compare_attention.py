#!/usr/bin/env python3
"""Prefill attention of a cubin beside cuDNN's and FlashAttention 2's through PyTorch, on one GPU.

    kernels/compare_attention.py CUBIN [OUT.json]

CUBIN is target/release/build/shoal-kernels-*/out/prefill_hopper.sm_90a.cubin. Needs PyTorch, nothing else of
this repository: a kernel can be compared before its launcher is built. Random q, k and v; keys and values of
the cubin's kernel lie in shuffled pages, those of the others are dense.
"""
import ctypes
import json
import math
import struct
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

driver = ctypes.CDLL("libcuda.so.1")
SHAPES = [((32, 8, 128), [(512, 16), (1024, 8), (4096, 2), (8192, 1), (16384, 1)]), ((16, 4, 64), [(1024, 8), (4096, 2)])]


def check(result, what):
    if result:
        sys.exit(f"{what}: CUDA error {result}")


def aligned(data, size):
    raw = ctypes.create_string_buffer(size + 128)
    address = (ctypes.addressof(raw) + 127) // 128 * 128
    ctypes.memmove(address, data, len(data))
    return raw, address


def tensor_map(tensor, columns):
    """Boxes of 64 columns by 64 rows of bf16 (type 9), in the 128-byte swizzle."""
    raw, address = aligned(b"", 128)
    sizes = (ctypes.c_uint64 * 2)(columns, tensor.numel() // columns)
    strides, boxes, steps = (ctypes.c_uint64 * 1)(columns * 2), (ctypes.c_uint32 * 2)(64, 64), (ctypes.c_uint32 * 2)(1, 1)
    pointer = ctypes.c_void_p(tensor.data_ptr())
    check(driver.cuTensorMapEncodeTiled(ctypes.c_void_p(address), 9, 2, pointer, sizes, strides, boxes, steps, 0, 3, 3, 0), "map")
    return ctypes.string_at(address, 128)


class Kernel:
    def __init__(self, path):
        self.image, module = open(path, "rb").read(), ctypes.c_void_p()
        check(driver.cuModuleLoadData(ctypes.byref(module), self.image), "loading")
        self.functions = {}
        for dim in (64, 128):
            function, shared = ctypes.c_void_p(), 5 * 128 * dim * 2 + 1024
            check(driver.cuModuleGetFunction(ctypes.byref(function), module, f"prefill_hopper_{dim}".encode()), "finding")
            check(driver.cuFuncSetAttribute(function, 8, shared), "shared memory")
            self.functions[dim] = (function, shared)

    def launch(self, q, arena, out, batch, length):
        """The parameters of cu/attention/prefill_hopper.cuh; returns what launches it."""
        tokens, heads, dim = q.shape
        pages, kv_heads = arena.shape[:2]
        table = torch.randperm(pages, device="cuda").to(torch.int32).view(batch, -1)
        lengths = torch.full((batch,), length, dtype=torch.int32, device="cuda")
        start = torch.arange(batch + 1, device="cuda", dtype=torch.int32) * length
        data = tensor_map(q, heads * dim) + tensor_map(arena, dim)
        data += struct.pack("<QQ", out.data_ptr(), start.data_ptr())
        data += struct.pack("<QQQII", table.data_ptr(), lengths.data_ptr(), table.shape[1], table.shape[1], 0)
        data += struct.pack("<QIIII", arena.data_ptr(), pages, kv_heads, 1, 0)
        data += struct.pack("<IIfI", heads, 0, math.log2(math.e) / math.sqrt(dim), tokens)
        keep, address = aligned(data, 384)
        arguments, (function, shared) = (ctypes.c_void_p * 1)(address), self.functions[dim]
        grid = (heads, (length + 127) // 128, batch)

        def run(_keep=(keep, table, lengths, start)):
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            check(driver.cuLaunchKernel(function, *grid, 384, 1, 1, shared, stream, arguments, None), "launching")

        return run, table


def best(run, flop):
    """Microseconds and TFLOP/s: the best of 5 times 10 launches."""
    times = []
    for _ in range(6):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(10):
            run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 10)
    return {"us": round(min(times[1:]) * 1e3, 1), "tflop_per_s": round(flop / min(times[1:]) / 1e9, 1)}


def compare(kernel, heads, kv_heads, dim, length, batch):
    q = torch.randn(batch * length, heads, dim, dtype=torch.bfloat16, device="cuda")
    arena = torch.randn(batch * length // 64, kv_heads, 2, 64, dim, dtype=torch.bfloat16, device="cuda")
    out = torch.full_like(q, math.nan)
    flop = 2 * dim * heads * batch * length * (length + 1)
    run, table = kernel.launch(q, arena, out, batch, length)
    row = {"heads": heads, "kv_heads": kv_heads, "dim": dim, "batch": batch, "length": length, "shoal": best(run, flop)}
    # [batch, page, head, K|V, token, dim] to dense [batch, head, token, dim]
    dense = arena[table.long()].permute(3, 0, 2, 1, 4, 5).reshape(2, batch, kv_heads, length, dim)
    dense_q = q.view(batch, length, heads, dim).transpose(1, 2)
    attend = torch.nn.functional.scaled_dot_product_attention
    for name, backend in (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash_attention_2", SDPBackend.FLASH_ATTENTION)):
        with sdpa_kernel(backend):
            row[name] = best(lambda: attend(dense_q, dense[0], dense[1], is_causal=True, enable_gqa=True), flop)
            theirs = attend(dense_q, dense[0], dense[1], is_causal=True, enable_gqa=True).transpose(1, 2).reshape(q.shape)
    row["difference"] = float((out.double() - theirs.double()).norm() / theirs.double().norm())
    return row


def main():
    torch.cuda.init()
    torch.zeros(1, device="cuda")
    kernel, rows = Kernel(sys.argv[1]), []
    for shape, sizes in SHAPES:
        for length, batch in sizes:
            rows.append(compare(kernel, *shape, length, batch))
            print(json.dumps(rows[-1]), flush=True)
    report = {
        "command": "kernels/compare_attention.py CUBIN OUT.json",
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "rows": rows,
    }
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)


main()
