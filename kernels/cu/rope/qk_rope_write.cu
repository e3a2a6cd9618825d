#include "qk_rope_write.cuh"

#define QK_ROPE_WRITE(NAME, KV, STYLE)                                                         \
    extern "C" __global__ void __launch_bounds__(kRopeWarps * 32)                              \
        NAME(const __grid_constant__ QkRopeParams p) {                                         \
        qk_rope_write<KV, Pairing::STYLE>(p);                                                  \
    }

QK_ROPE_WRITE(qk_rope_write_half_bf16, bf16, Half)
QK_ROPE_WRITE(qk_rope_write_half_f16, f16, Half)
QK_ROPE_WRITE(qk_rope_write_interleaved_bf16, bf16, Interleaved)
QK_ROPE_WRITE(qk_rope_write_interleaved_f16, f16, Interleaved)
