// ids[r] = the lowest index of the largest logit of row r.
//
// logits [rows][vocab], f32 or bf16, row stride in elements, no alignment asked. NaN never wins; a row of
// NaN alone gives 0xffffffff. Two kernels: grid (parts, rows) finds the best of each part of a row, then a
// warp per row the best of the parts. The result does not depend on the number of parts. Floor: one read
// of the logits.
#include "../common/chain.cuh"
#include "../common/element.cuh"
#include "../common/reduce.cuh"

struct Best {
    float value;
    uint32_t index;
};

template <typename T> struct ArgmaxParams {
    const T* logits;
    uint32_t* ids;
    Best* partial;  // [rows][parts]
    uint64_t stride;
    uint32_t vocab;
    uint32_t parts;
};

constexpr int kArgmaxWarps = 8;

// A larger value wins, then a lower index. The empty Best (index 0xffffffff) loses to everything.
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

template <typename T> __device__ __forceinline__ void argmax_part(const ArgmaxParams<T>& p) {
    chain::begin();
    __shared__ Best partial[kArgmaxWarps];
    const T* row = p.logits + blockIdx.y * p.stride;
    const uint32_t first = uint64_t(p.vocab) * blockIdx.x / p.parts;
    const uint32_t end = uint64_t(p.vocab) * (blockIdx.x + 1) / p.parts;
    Best best = {0.f, 0xffffffffu};
#pragma unroll 4
    for (uint32_t i = first + threadIdx.x; i < end; i += kArgmaxWarps * 32) {
        const float value = to_f32(row[i]);
        if (value == value) best = better(best, {value, i});
    }
    best = warp_best(best);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = best;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    best = warp_best(threadIdx.x < kArgmaxWarps ? partial[threadIdx.x] : Best{0.f, 0xffffffffu});
    if (threadIdx.x == 0) p.partial[blockIdx.y * p.parts + blockIdx.x] = best;
}

extern "C" __global__ void __launch_bounds__(kArgmaxWarps * 32)
    argmax_f32(const __grid_constant__ ArgmaxParams<float> p) {
    argmax_part(p);
}

extern "C" __global__ void __launch_bounds__(kArgmaxWarps * 32)
    argmax_bf16(const __grid_constant__ ArgmaxParams<bf16> p) {
    argmax_part(p);
}

extern "C" __global__ void __launch_bounds__(32) argmax_pick(const __grid_constant__ ArgmaxParams<bf16> p) {
    chain::begin();
    Best best = {0.f, 0xffffffffu};
    for (uint32_t part = threadIdx.x; part < p.parts; part += 32)
        best = better(best, p.partial[blockIdx.x * p.parts + part]);
    best = warp_best(best);
    if (threadIdx.x == 0) p.ids[blockIdx.x] = best.index;
}
