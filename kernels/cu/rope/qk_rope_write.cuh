// For every token t and head h of qkv[t] = [q heads | k heads | v heads], each of Dim elements:
//   y = x / sqrt(mean(x^2) + eps) * norm_weight       q and k, where a norm weight is given
//   (a, b) = (a cos - b sin, b cos + a sin)           q and k, with cos/sin[position[t]][pair]; pairs are
//                                                     (i, i + Dim/2) (Half) or (2i, 2i + 1) (Interleaved)
// q goes to q_out [tokens][q_heads][Dim] as bf16; k and v go to the pages as KV at slot[t] = page * 64 +
// offset. A slot of 0xffffffff writes neither k nor v (padding rows of a captured graph); a slot past the
// last page does the same. Arithmetic is f32 throughout, one rounding at the end.
// Rows are 16-byte aligned. A thread owns 8 pairs, which are two 16-byte accesses: Dim / 16 neighbours are a head.
// Floor: 4 bytes per qkv element.
#pragma once
#include "../common/chain.cuh"
#include "../common/element.cuh"
#include "../common/pages.cuh"
#include "../common/reduce.cuh"

struct QkRopeParams {
    const bf16* qkv;
    const bf16* q_norm;  // [Dim], or null
    const bf16* k_norm;  // [Dim], or null
    const float* cos;    // [positions][Dim / 2]
    const float* sin;
    const uint32_t* position;
    const uint32_t* slot;
    bf16* q_out;
    Pages pages;
    uint64_t qkv_stride;
    uint32_t tokens;
    uint32_t q_heads;
    uint32_t positions;
    float eps;
};

constexpr int kRopeThreads = 128;
enum class Pairing { Half, Interleaved };

// A thread's 8 pairs: the places of its two vectors in the head, and what is in them.
template <int Dim, Pairing Style> struct Pairs {
    static constexpr bool kHalf = Style == Pairing::Half;
    float x[16];

    static __device__ __forceinline__ uint32_t place(uint32_t lane, int vector) {
        return kHalf ? lane * 8 + vector * (Dim / 2) : lane * 16 + vector * 8;
    }

    __device__ __forceinline__ void load(const bf16* head, uint32_t lane) {
#pragma unroll
        for (int v = 0; v < 2; ++v) {
            const Vec8<bf16> vec = load8(head + place(lane, v));
#pragma unroll
            for (int e = 0; e < 8; ++e) x[v * 8 + e] = to_f32(vec.lane[e]);
        }
    }

    template <typename T> __device__ __forceinline__ void store(T* head, uint32_t lane) const {
#pragma unroll
        for (int v = 0; v < 2; ++v) {
            Vec8<T> vec;
#pragma unroll
            for (int e = 0; e < 8; ++e) vec.lane[e] = from_f32<T>(x[v * 8 + e]);
            store8(head + place(lane, v), vec);
        }
    }

    __device__ __forceinline__ void scale(float by, const bf16* weight, uint32_t lane) {
        Pairs<Dim, Style> w;
        w.load(weight, lane);
#pragma unroll
        for (int e = 0; e < 16; ++e) x[e] *= by * w.x[e];
    }

    // `cos` and `sin` are those of the thread's 8 pairs.
    __device__ __forceinline__ void rotate(const float* cos, const float* sin) {
        float c[8], s[8];
        memcpy(c, __builtin_assume_aligned(cos, 16), sizeof(c));
        memcpy(s, __builtin_assume_aligned(sin, 16), sizeof(s));
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int first = kHalf ? i : 2 * i, second = kHalf ? i + 8 : 2 * i + 1;
            const float a = x[first], b = x[second];
            x[first] = a * c[i] - b * s[i];
            x[second] = b * c[i] + a * s[i];
        }
    }
};

// The sum over the lanes of a head, all of which get it. Every lane of the warp comes here.
template <int Lanes> __device__ __forceinline__ float head_sum(float sum) {
#pragma unroll
    for (int offset = Lanes / 2; offset > 0; offset >>= 1) sum += __shfl_xor_sync(kAllLanes, sum, offset);
    return sum;
}

template <typename KV, Pairing Style, int Dim> __device__ __forceinline__ void qk_rope_write(const QkRopeParams& p) {
    constexpr int kLanes = Dim / 16;
    chain::begin();
    const uint32_t lane = threadIdx.x % kLanes;
    const uint32_t heads = p.q_heads + 2 * p.pages.kv_heads;
    const uint32_t work = (blockIdx.x * kRopeThreads + threadIdx.x) / kLanes;
    const uint32_t token = work / heads, head = work % heads;
    const bool real = token < p.tokens;
    const bool is_q = head < p.q_heads, is_v = head >= p.q_heads + p.pages.kv_heads;

    Pairs<Dim, Style> pairs = {};
    if (real) pairs.load(p.qkv + token * p.qkv_stride + uint64_t(head) * Dim, lane);
    const bf16* weight = is_q ? p.q_norm : p.k_norm;
    if (weight) {
        float sum = 0.f;
#pragma unroll
        for (int e = 0; e < 16; ++e) sum += pairs.x[e] * pairs.x[e];
        const float scale = rsqrtf(head_sum<kLanes>(sum) / Dim + p.eps);
        if (!is_v) pairs.scale(scale, weight, lane);
    }
    if (!real) return;
    if (!is_v) {
        const uint32_t position = p.position[token];
        const uint64_t table = uint64_t(min(position, p.positions - 1)) * (Dim / 2) + lane * 8;
        pairs.rotate(p.cos + table, p.sin + table);
        // A position past the tables gives NaN, as an id past the embedding does.
        if (position >= p.positions) pairs.x[0] = __int_as_float(0x7fffffff);
    }
    if (is_q) {
        pairs.store(p.q_out + (uint64_t(token) * p.q_heads + head) * Dim, lane);
        return;
    }
    const uint32_t slot = p.slot[token], page = slot / kPageTokens;
    if (page >= p.pages.count) return;
    const uint32_t kv_head = head - p.q_heads - (is_v ? p.pages.kv_heads : 0);
    pairs.store(p.pages.run<KV>(page, kv_head, is_v, Dim) + (slot % kPageTokens) * Dim, lane);
}
