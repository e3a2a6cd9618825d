#include "qk_rope_write.cuh"

#define QK_ROPE_WRITE(NAME, KV, STYLE, DIM)                                                    \
    extern "C" __global__ void __launch_bounds__(kRopeThreads)                                 \
        NAME(const __grid_constant__ QkRopeParams p) {                                         \
        qk_rope_write<KV, Pairing::STYLE, DIM>(p);                                             \
    }

#define QK_ROPE_WRITE_OF(NAME, KV, STYLE)       \
    QK_ROPE_WRITE(NAME##_64, KV, STYLE, 64)     \
    QK_ROPE_WRITE(NAME##_128, KV, STYLE, 128)

QK_ROPE_WRITE_OF(qk_rope_write_half_bf16, bf16, Half)
QK_ROPE_WRITE_OF(qk_rope_write_half_f16, f16, Half)
QK_ROPE_WRITE_OF(qk_rope_write_interleaved_bf16, bf16, Interleaved)
QK_ROPE_WRITE_OF(qk_rope_write_interleaved_f16, f16, Interleaved)
