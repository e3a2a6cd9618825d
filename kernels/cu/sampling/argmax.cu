// ids[r] = the lowest index of the largest logit of row r.
//
// logits [rows][vocab], f32 or bf16, row stride in elements, no alignment asked. NaN never wins; a row of
// NaN alone gives 0xffffffff. Two kernels: grid (parts, rows) finds the best of each part of a row, then a
// warp per row the best of the parts. The result does not depend on the number of parts. Floor: one read
// of the logits.
#include "../common/chain.cuh"
#include "../common/element.cuh"
#include "best.cuh"

template <typename T> struct ArgmaxParams {
    const T* logits;
    uint32_t* ids;
    Best* partial;  // [rows][parts]
    uint64_t stride;
    uint32_t vocab;
    uint32_t parts;
};

template <typename T> __device__ __forceinline__ void argmax_part(const ArgmaxParams<T>& p) {
    chain::begin();
    const T* row = p.logits + blockIdx.y * p.stride;
    best_of_part(p.vocab, p.parts, p.partial, [&](uint32_t i) { return to_f32(row[i]); });
}

extern "C" __global__ void __launch_bounds__(kBestWarps * 32)
    argmax_f32(const __grid_constant__ ArgmaxParams<float> p) {
    argmax_part(p);
}

extern "C" __global__ void __launch_bounds__(kBestWarps * 32)
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
