#include "decode.cuh"

#define DECODE_SPLIT(NAME, KV, DIM)                                                            \
    extern "C" __global__ void __launch_bounds__(kDecodeThreads)                               \
        NAME(const __grid_constant__ DecodeParams p) {                                         \
        decode_split<KV, DIM>(p);                                                              \
    }

#define DECODE_COMBINE(NAME, DIM)                                                              \
    extern "C" __global__ void __launch_bounds__(32) NAME(const __grid_constant__ DecodeParams p) { \
        decode_combine<DIM>(p);                                                                \
    }

DECODE_SPLIT(decode_split_bf16_64, bf16, 64)
DECODE_SPLIT(decode_split_bf16_128, bf16, 128)
DECODE_SPLIT(decode_split_f16_64, f16, 64)
DECODE_SPLIT(decode_split_f16_128, f16, 128)
DECODE_COMBINE(decode_combine_64, 64)
DECODE_COMBINE(decode_combine_128, 128)
