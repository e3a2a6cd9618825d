// The best of many values: the largest, and of equals the lowest index.
#pragma once
#include "../common/reduce.cuh"

struct Best {
    float value;
    uint32_t index;
};

constexpr int kBestWarps = 8;

// The empty Best (index 0xffffffff) loses to everything.
__device__ __forceinline__ Best better(Best a, Best b) {
    const bool take = b.index != 0xffffffffu &&
                      (a.index == 0xffffffffu || b.value > a.value || (b.value == a.value && b.index < a.index));
    return take ? b : a;
}

__device__ __forceinline__ Best warp_best(Best best) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
        const Best other = {__shfl_xor_sync(kAllLanes, best.value, offset),
                            __shfl_xor_sync(kAllLanes, best.index, offset)};
        best = better(best, other);
    }
    return best;
}

// The best of a block's part of a row goes to partial[row][part]; blocks are (part, row).
template <typename Value>
__device__ __forceinline__ void best_of_part(uint32_t vocab, uint32_t parts, Best* partial, const Value& value) {
    __shared__ Best shared[kBestWarps];
    const uint32_t first = uint64_t(vocab) * blockIdx.x / parts, end = uint64_t(vocab) * (blockIdx.x + 1) / parts;
    Best best = {0.f, 0xffffffffu};
#pragma unroll 4
    for (uint32_t i = first + threadIdx.x; i < end; i += kBestWarps * 32) {
        const float v = value(i);
        if (v == v) best = better(best, {v, i});
    }
    best = warp_best(best);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = best;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    best = warp_best(threadIdx.x < kBestWarps ? shared[threadIdx.x] : Best{0.f, 0xffffffffu});
    if (threadIdx.x == 0) partial[blockIdx.y * parts + blockIdx.x] = best;
}
