// ids[r] = the lowest index of the largest logit of row r.
//
// logits [rows][vocab], f32 or bf16, row stride in elements, no alignment asked. NaN never wins; a row of
// NaN alone gives 0xffffffff. One block per row; ties and the order
// of the reduction do not depend on the grid. Floor: one read of the logits.
#include "../common/chain.cuh"
#include "../common/element.cuh"
#include "../common/reduce.cuh"

template <typename T> struct ArgmaxParams {
    const T* logits;
    uint32_t* ids;
    uint64_t stride;
    uint32_t vocab;
    uint32_t padding;
};

constexpr int kArgmaxWarps = 32;

struct Best {
    float value;
    uint32_t index;
};

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

template <typename T> __device__ __forceinline__ void argmax(const ArgmaxParams<T>& p) {
    chain::begin();
    __shared__ Best partial[kArgmaxWarps];
    const T* row = p.logits + blockIdx.x * p.stride;
    Best best = {0.f, 0xffffffffu};
    for (uint32_t i = threadIdx.x; i < p.vocab; i += kArgmaxWarps * 32) {
        const float value = to_f32(row[i]);
        if (value == value) best = better(best, {value, i});
    }
    best = warp_best(best);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = best;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    best = warp_best(partial[threadIdx.x]);
    if (threadIdx.x == 0) p.ids[blockIdx.x] = best.index;
}

extern "C" __global__ void __launch_bounds__(kArgmaxWarps * 32)
    argmax_f32(const __grid_constant__ ArgmaxParams<float> p) {
    argmax(p);
}

extern "C" __global__ void __launch_bounds__(kArgmaxWarps * 32)
    argmax_bf16(const __grid_constant__ ArgmaxParams<bf16> p) {
    argmax(p);
}
