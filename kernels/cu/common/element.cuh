// Element types and 16-byte vectors of them. All arithmetic is f32; memory is bf16, f16 or f32.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

using bf16 = __nv_bfloat16;
using f16 = __half;

__device__ __forceinline__ float to_f32(float x) { return x; }
__device__ __forceinline__ float to_f32(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_f32(f16 x) { return __half2float(x); }

// Rounds to nearest even, as the f64 references do.
template <typename T> __device__ __forceinline__ T from_f32(float x);
template <> __device__ __forceinline__ float from_f32<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_f32<bf16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ __forceinline__ f16 from_f32<f16>(float x) { return __float2half_rn(x); }

// Two 16-bit elements in one register, `low` at the lower address.
template <typename T> __device__ __forceinline__ uint32_t pack2(float low, float high) {
    const T pair[2] = {from_f32<T>(low), from_f32<T>(high)};
    uint32_t word;
    memcpy(&word, pair, sizeof(word));
    return word;
}

// Eight 16-bit elements, moved by one 16-byte access. The address must be a multiple of 16.
template <typename T> struct alignas(16) Vec8 {
    static_assert(sizeof(T) == 2, "a Vec8 is 16 bytes");
    T lane[8];
};

template <typename T> __device__ __forceinline__ Vec8<T> load8(const T* address) {
    const uint4 raw = *reinterpret_cast<const uint4*>(address);
    Vec8<T> vec;
    memcpy(&vec, &raw, sizeof(vec));
    return vec;
}

template <typename T> __device__ __forceinline__ void store8(T* address, const Vec8<T>& vec) {
    uint4 raw;
    memcpy(&raw, &vec, sizeof(raw));
    *reinterpret_cast<uint4*>(address) = raw;
}
