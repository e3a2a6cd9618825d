// Reductions over a warp or a block. The order of additions is fixed, so equal input gives equal bits.
#pragma once
#include <stdint.h>

constexpr uint32_t kAllLanes = 0xffffffffu;

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(kAllLanes, x, offset);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
    return x;
}

// Every thread of the block gets the sum. `Warps` is blockDim.x / 32.
template <int Warps> __device__ __forceinline__ float block_sum(float x) {
    __shared__ float partial[Warps];
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0.f;
#pragma unroll
    for (int warp = 0; warp < Warps; ++warp) sum += partial[warp];
    return sum;
}
