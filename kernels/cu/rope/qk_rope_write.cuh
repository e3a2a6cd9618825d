// For every token t and head h of qkv[t] = [q heads | k heads | v heads], each of `dim` elements:
//   y = x / sqrt(mean(x^2) + eps) * norm_weight       q and k, where a norm weight is given
//   (a, b) = (a cos - b sin, b cos + a sin)           q and k, over the first `rotary` elements, with
//                                                     cos/sin[position[t]][pair]; pairs are (i, i + rotary/2)
//                                                     (Half) or (2i, 2i + 1) (Interleaved)
// q goes to q_out [tokens][q_heads][dim] as bf16; k and v go to the pages as KV at slot[t] = page * 64 +
// offset. A slot of 0xffffffff writes neither k nor v (padding rows of a captured graph); a slot past the
// last page does the same. Arithmetic is f32 throughout, one rounding at the end.
// One warp per (token, head); the row passes through shared memory, so any even dim up to 256 works.
// Floor: 4 bytes per qkv element.
#pragma once
#include "../common/chain.cuh"
#include "../common/element.cuh"
#include "../common/pages.cuh"
#include "../common/reduce.cuh"

struct QkRopeParams {
    const bf16* qkv;
    const bf16* q_norm;  // [dim], or null
    const bf16* k_norm;  // [dim], or null
    const float* cos;    // [positions][rotary / 2]
    const float* sin;
    const uint32_t* position;
    const uint32_t* slot;
    bf16* q_out;
    Pages pages;
    uint64_t qkv_stride;
    uint32_t tokens;
    uint32_t q_heads;
    uint32_t dim;
    uint32_t rotary;
    uint32_t positions;
    float eps;
};

constexpr int kRopeWarps = 4;
constexpr int kRopeMaxDim = 256;
enum class Pairing { Half, Interleaved };

__device__ __forceinline__ void norm_row(float* row, const bf16* weight, const QkRopeParams& p, uint32_t lane) {
    float sum = 0.f;
    for (uint32_t i = lane; i < p.dim; i += 32) sum += row[i] * row[i];
    const float scale = rsqrtf(warp_sum(sum) / p.dim + p.eps);
    for (uint32_t i = lane; i < p.dim; i += 32) row[i] *= scale * to_f32(weight[i]);
    __syncwarp();
}

// A position past the tables gives NaN, as an id past the embedding does.
template <Pairing Style>
__device__ __forceinline__ void rotate_row(float* row, uint32_t position, const QkRopeParams& p, uint32_t lane) {
    const uint32_t half = p.rotary / 2;
    const bool known = position < p.positions;
    const uint64_t table = uint64_t(known ? position : 0) * half;
    for (uint32_t i = lane; i < half; i += 32) {
        const uint32_t first = Style == Pairing::Half ? i : 2 * i;
        const uint32_t second = Style == Pairing::Half ? i + half : 2 * i + 1;
        const float a = row[first], b = row[second];
        const float c = known ? p.cos[table + i] : __int_as_float(0x7fffffff), s = p.sin[table + i];
        row[first] = a * c - b * s;
        row[second] = b * c + a * s;
    }
    __syncwarp();
}

template <typename T> __device__ __forceinline__ void store_row(T* out, const float* row, uint32_t dim, uint32_t lane) {
    for (uint32_t i = lane; i < dim; i += 32) out[i] = from_f32<T>(row[i]);
}

template <typename KV, Pairing Style> __device__ __forceinline__ void qk_rope_write(const QkRopeParams& p) {
    chain::begin();
    __shared__ float rows[kRopeWarps][kRopeMaxDim];
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t heads = p.q_heads + 2 * p.pages.kv_heads;
    const uint32_t work = blockIdx.x * kRopeWarps + threadIdx.x / 32;
    const uint32_t token = work / heads, head = work % heads;
    if (token >= p.tokens) return;

    float* row = rows[threadIdx.x / 32];
    const bf16* in = p.qkv + token * p.qkv_stride + uint64_t(head) * p.dim;
    for (uint32_t i = lane; i < p.dim; i += 32) row[i] = to_f32(in[i]);
    __syncwarp();

    const bool is_q = head < p.q_heads, is_v = head >= p.q_heads + p.pages.kv_heads;
    if (!is_v) {
        const bf16* weight = is_q ? p.q_norm : p.k_norm;
        if (weight) norm_row(row, weight, p, lane);
        rotate_row<Style>(row, p.position[token], p, lane);
    }
    if (is_q) {
        store_row(p.q_out + (uint64_t(token) * p.q_heads + head) * p.dim, row, p.dim, lane);
        return;
    }
    const uint32_t slot = p.slot[token], page = slot / kPageTokens;
    if (page >= p.pages.count) return;
    const uint32_t kv_head = head - p.q_heads - (is_v ? p.pages.kv_heads : 0);
    KV* run = p.pages.run<KV>(page, kv_head, is_v, p.dim);
    store_row(run + (slot % kPageTokens) * p.dim, row, p.dim, lane);
}
