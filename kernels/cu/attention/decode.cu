#include "decode.cuh"

#define DECODE(NAME, BLOCKS, KV, DIM)                                                          \
    extern "C" __global__ void __launch_bounds__(kDecodeThreads, BLOCKS)                       \
        NAME(const __grid_constant__ DecodeParams p) {                                         \
        decode_attention<KV, DIM>(p);                                                          \
    }

DECODE(decode_bf16_64, 4, bf16, 64)
DECODE(decode_bf16_128, 2, bf16, 128)
DECODE(decode_f16_64, 4, f16, 64)
DECODE(decode_f16_128, 2, f16, 128)
