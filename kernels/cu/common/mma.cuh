// Warp-wide 16x8x16 matrix products with f32 accumulators, and the shared-memory loads that feed them.
//
// Lane l owns, with g = l / 4 and c = 2 * (l % 4): of the accumulator, elements (g, c), (g, c + 1),
// (g + 8, c), (g + 8, c + 1); of A, pairs at (g, c), (g + 8, c), (g, c + 8), (g + 8, c + 8); of B
// [k][n], pairs along k at (c, g) and (c + 8, g).
#pragma once
#include "cp_async.cuh"
#include "element.cuh"

template <typename T>
__device__ __forceinline__ void mma16816(float (&acc)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

#define SHOAL_MMA(T, NAME)                                                                                  \
    template <>                                                                                             \
    __device__ __forceinline__ void mma16816<T>(float (&acc)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." NAME "." NAME ".f32 "                         \
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                \
                     : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])                               \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                       \
    }
SHOAL_MMA(bf16, "bf16")
SHOAL_MMA(f16, "f16")
#undef SHOAL_MMA

// Four 8x8 matrices of 16-bit elements; lanes 8i..8i+7 give the row addresses of matrix i.
__device__ __forceinline__ void ldmatrix4(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void ldmatrix4_transposed(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
