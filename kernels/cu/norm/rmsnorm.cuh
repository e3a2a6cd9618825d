// residual[t][:] += x[t][:]                                     (only with Add; rounded to T when stored)
// out[t][:] = residual[t][:] / sqrt(mean(residual[t][:]^2) + eps) * weight[:]
//
// All rows are T with strides in elements, 16-byte aligned, hidden a multiple of 8. Without Add, `x` is
// normalised and `residual` is not touched. The norm is taken over the rounded sum, so that it is a
// function of what is stored. One block per token; each thread owns the same vectors in both passes, and
// the second pass finds them in cache. Floor: 8 (Add) or 4 bytes per element.
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

template <typename T> __device__ __forceinline__ float squares(const Vec8<T>& vec) {
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += to_f32(vec.lane[i]) * to_f32(vec.lane[i]);
    return sum;
}

template <typename T, bool Add> __device__ __forceinline__ void rmsnorm(const RmsNormParams<T>& p) {
    chain::begin();
    const T* x = p.x + blockIdx.x * p.x_stride;
    T* residual = p.residual + blockIdx.x * p.residual_stride;
    const T* source = Add ? residual : x;
    float sum = 0.f;
    for (uint32_t i = threadIdx.x; i < p.hidden / 8; i += kNormWarps * 32) {
        Vec8<T> vec = load8(x + i * 8);
        if (Add) {
            const Vec8<T> old = load8(residual + i * 8);
#pragma unroll
            for (int e = 0; e < 8; ++e) vec.lane[e] = from_f32<T>(to_f32(vec.lane[e]) + to_f32(old.lane[e]));
            store8(residual + i * 8, vec);
        }
        sum += squares(vec);
    }
    const float scale = rsqrtf(block_sum<kNormWarps>(sum) / p.hidden + p.eps);
    T* out = p.out + blockIdx.x * p.out_stride;
    for (uint32_t i = threadIdx.x; i < p.hidden / 8; i += kNormWarps * 32) {
        Vec8<T> vec = load8(source + i * 8);
        const Vec8<T> weight = load8(p.weight + i * 8);
#pragma unroll
        for (int e = 0; e < 8; ++e)
            vec.lane[e] = from_f32<T>(to_f32(vec.lane[e]) * scale * to_f32(weight.lane[e]));
        store8(out + i * 8, vec);
    }
}
