// residual[t][:] += x[t][:]                                     (only with Add; rounded to T when stored)
// out[t][:] = residual[t][:] / sqrt(mean(residual[t][:]^2) + eps) * weight[:]
//
// All rows are T with strides in elements, 16-byte aligned, hidden a multiple of 8. Without Add, `x` is
// normalised and `residual` is not touched. The norm is taken over the rounded sum, so that it is a
// function of what is stored. One block per token; each thread keeps its first vectors in registers and reads
// what is past them, which is in cache, once more. A weight does not depend on the kernel before: it is asked for
// before the wait for that kernel. Floor: 8 (Add) or 4 bytes per element.
#pragma once
#include "../common/chain.cuh"
#include "../common/element.cuh"
#include "../common/reduce.cuh"

template <typename T> struct RmsNormParams {
    const T* x;
    T* residual;
    const T* weight;
    T* out;
    uint64_t x_stride;
    uint64_t residual_stride;
    uint64_t out_stride;
    uint32_t hidden;
    float eps;
};

constexpr int kNormWarps = 8;
constexpr uint32_t kNormThreads = kNormWarps * 32;
// Vectors of a row that a thread keeps: 4096 elements a row in all.
constexpr uint32_t kKept = 2;

template <typename T> __device__ __forceinline__ float squares(const Vec8<T>& vec) {
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += to_f32(vec.lane[i]) * to_f32(vec.lane[i]);
    return sum;
}

// A vector of the row; with Add the sum, which is stored.
template <typename T, bool Add> __device__ __forceinline__ Vec8<T> take(const T* x, T* residual) {
    Vec8<T> vec = load8(x);
    if (Add) {
        const Vec8<T> old = load8(residual);
#pragma unroll
        for (int e = 0; e < 8; ++e) vec.lane[e] = from_f32<T>(to_f32(vec.lane[e]) + to_f32(old.lane[e]));
        store8(residual, vec);
    }
    return vec;
}

template <typename T>
__device__ __forceinline__ void put(T* out, Vec8<T> vec, const Vec8<T>& weight, float scale) {
#pragma unroll
    for (int e = 0; e < 8; ++e) vec.lane[e] = from_f32<T>(to_f32(vec.lane[e]) * scale * to_f32(weight.lane[e]));
    store8(out, vec);
}

template <typename T, bool Add> __device__ __forceinline__ void rmsnorm(const RmsNormParams<T>& p) {
    const T* x = p.x + blockIdx.x * p.x_stride;
    T* residual = p.residual + blockIdx.x * p.residual_stride;
    T* out = p.out + blockIdx.x * p.out_stride;
    const uint32_t vectors = p.hidden / 8, rest = threadIdx.x + kKept * kNormThreads;
    Vec8<T> weight[kKept], kept[kKept];
#pragma unroll
    for (uint32_t v = 0; v < kKept; ++v) {
        const uint32_t i = threadIdx.x + v * kNormThreads;
        if (i < vectors) weight[v] = load8(p.weight + i * 8);
    }
    chain::begin();
    float sum = 0.f;
#pragma unroll
    for (uint32_t v = 0; v < kKept; ++v) {
        const uint32_t i = threadIdx.x + v * kNormThreads;
        if (i >= vectors) continue;
        kept[v] = take<T, Add>(x + i * 8, residual + i * 8);
        sum += squares(kept[v]);
    }
    for (uint32_t i = rest; i < vectors; i += kNormThreads) sum += squares(take<T, Add>(x + i * 8, residual + i * 8));
    const float scale = rsqrtf(block_sum<kNormWarps>(sum) / p.hidden + p.eps);
#pragma unroll
    for (uint32_t v = 0; v < kKept; ++v) {
        const uint32_t i = threadIdx.x + v * kNormThreads;
        if (i < vectors) put(out + i * 8, kept[v], weight[v], scale);
    }
    const T* source = Add ? residual : x;
    for (uint32_t i = rest; i < vectors; i += kNormThreads)
        put(out + i * 8, load8(source + i * 8), load8(p.weight + i * 8), scale);
}
