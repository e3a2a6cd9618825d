// out[b][h][:] = softmax(scale * q[b][h] . K[b]) V[b] over the last `window` (0: all) of length[b] tokens,
// the new token's own key and value already in the pages.
//
// q and out [batch][q_heads][Dim] bf16; length is the page table's.
// A sequence of length 0 gives zeros. `splits` blocks share a sequence: block s takes an equal run of its
// pages, writes its unnormalised sum and (max, sum of exponentials) to `partial`, and decode_combine joins
// them in the order of s. The result depends on `splits`, never on the batch around the sequence.
// A block owns one kv head and up to 8 of its q heads (grid.x = kv_heads * chunks): per page, threads
// first score (head, token) pairs, then a warp per head updates the softmax, then threads own dimensions.
// Tokens past the length or before the window are copied (pages are whole) but never used.
// Floor: one read of K and V.
#pragma once
#include "../common/chain.cuh"
#include "../common/element.cuh"
#include "../common/reduce.cuh"
#include "tile.cuh"

struct DecodeParams {
    const bf16* q;
    bf16* out;
    float* partial;      // [batch][q_heads][splits][Dim]
    float* partial_sum;  // [batch][q_heads][splits][2]: max (base 2, scaled), sum
    PageTable table;
    Pages pages;
    uint32_t q_heads;
    uint32_t splits;
    uint32_t window;
    float scale_log2;  // scale * log2(e)
};

constexpr int kDecodeThreads = 128;
constexpr int kDecodeHeads = 8;

template <typename KV, int Dim> struct DecodeShared {
    KV keys[kTileElements<Dim>];
    KV values[kTileElements<Dim>];
    float q[kDecodeHeads][Dim];
    float score[kDecodeHeads][kPageTokens];
    float max[kDecodeHeads], sum[kDecodeHeads], rescale[kDecodeHeads];
};

// score[h][t] = q[h] . K[t], or -inf outside [first, end).
template <typename KV, int Dim>
__device__ __forceinline__ void score_page(DecodeShared<KV, Dim>& s, int heads, int base, int first, int end) {
    for (int pair = threadIdx.x; pair < heads * kPageTokens; pair += kDecodeThreads) {
        const int head = pair / kPageTokens, token = pair % kPageTokens;
        const KV* key = s.keys + token * kTileStride<Dim>;
        float dot = 0.f;
#pragma unroll
        for (int i = 0; i < Dim; i += 8) {
            const Vec8<KV> vec = load8(key + i);
#pragma unroll
            for (int e = 0; e < 8; ++e) dot += s.q[head][i + e] * to_f32(vec.lane[e]);
        }
        const bool seen = base + token >= first && base + token < end;
        s.score[head][token] = seen ? dot : -INFINITY;
    }
}

// Turns scores into weights and updates the running maximum and sum. One warp per head, two tokens a lane.
template <typename KV, int Dim> __device__ __forceinline__ void weigh_page(DecodeShared<KV, Dim>& s, int heads) {
    const int lane = threadIdx.x % 32;
    for (int head = threadIdx.x / 32; head < heads; head += kDecodeThreads / 32) {
        const float a = s.score[head][lane], b = s.score[head][lane + 32];
        const float old = s.max[head], top = fmaxf(old, warp_max(fmaxf(a, b)));
        // Every page of the loop holds at least one visible token, so top is finite.
        const float pa = exp2f(a - top), pb = exp2f(b - top), sum = warp_sum(pa + pb);
        s.score[head][lane] = pa;
        s.score[head][lane + 32] = pb;
        __syncwarp();  // every lane has read the old maximum before lane 0 replaces it
        if (lane == 0) {
            s.rescale[head] = exp2f(old - top);
            s.sum[head] = s.sum[head] * s.rescale[head] + sum;
            s.max[head] = top;
        }
    }
}

template <typename KV, int Dim> __device__ __forceinline__ void decode_split(const DecodeParams& p) {
    extern __shared__ __align__(16) unsigned char raw[];
    auto& s = *reinterpret_cast<DecodeShared<KV, Dim>*>(raw);
    constexpr int kOwned = (Dim + kDecodeThreads - 1) / kDecodeThreads;
    const uint32_t group = p.q_heads / p.pages.kv_heads, chunks = (group + kDecodeHeads - 1) / kDecodeHeads;
    const uint32_t kv_head = blockIdx.x / chunks, chunk = blockIdx.x % chunks;
    const uint32_t split = blockIdx.y, sequence = blockIdx.z;
    const uint32_t first_head = kv_head * group + chunk * kDecodeHeads;
    const int heads = min(group - chunk * kDecodeHeads, uint32_t(kDecodeHeads));
    chain::begin();

    const int end = p.table.tokens(sequence);
    const int first = p.window && end > int(p.window) ? end - int(p.window) : 0;
    const int first_page = first / kPageTokens, pages = (end + kPageTokens - 1) / kPageTokens - first_page;
    const int begin_page = first_page + int(int64_t(pages) * split / p.splits);
    const int end_page = first_page + int(int64_t(pages) * (split + 1) / p.splits);

    for (int i = threadIdx.x; i < heads * Dim; i += kDecodeThreads) {
        const uint64_t row = uint64_t(sequence) * p.q_heads + first_head + i / Dim;
        s.q[i / Dim][i % Dim] = to_f32(p.q[row * Dim + i % Dim]) * p.scale_log2;
    }
    if (threadIdx.x < kDecodeHeads) {
        s.max[threadIdx.x] = -INFINITY;
        s.sum[threadIdx.x] = 0.f;
    }
    float acc[kDecodeHeads][kOwned] = {};
    for (int page = begin_page; page < end_page; ++page) {
        const uint32_t id = p.table.at(sequence, page, p.pages);
        __syncthreads();
        load_tile<KV, Dim, kDecodeThreads>(s.keys, p.pages.run<KV>(id, kv_head, 0, Dim));
        load_tile<KV, Dim, kDecodeThreads>(s.values, p.pages.run<KV>(id, kv_head, 1, Dim));
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        score_page(s, heads, page * kPageTokens, first, end);
        __syncthreads();
        weigh_page(s, heads);
        __syncthreads();
        const int begin_token = max(first - page * kPageTokens, 0);
        const int end_token = min(end - page * kPageTokens, kPageTokens);
#pragma unroll
        for (int o = 0; o < kOwned; ++o) {
            const int d = threadIdx.x + o * kDecodeThreads;
            if (d >= Dim) break;
#pragma unroll
            for (int h = 0; h < kDecodeHeads; ++h)
                if (h < heads) acc[h][o] *= s.rescale[h];
            for (int t = begin_token; t < end_token; ++t) {
                const float v = to_f32(s.values[t * kTileStride<Dim> + d]);
#pragma unroll
                for (int h = 0; h < kDecodeHeads; ++h)
                    if (h < heads) acc[h][o] += s.score[h][t] * v;
            }
        }
    }
    __syncthreads();
#pragma unroll
    for (int h = 0; h < kDecodeHeads; ++h) {
        if (h >= heads) break;
        const uint64_t row = (uint64_t(sequence) * p.q_heads + first_head + h) * p.splits + split;
#pragma unroll
        for (int o = 0; o < kOwned; ++o) {
            const int d = threadIdx.x + o * kDecodeThreads;
            if (d < Dim) p.partial[row * Dim + d] = acc[h][o];
        }
        if (threadIdx.x == 0) {
            p.partial_sum[row * 2] = s.max[h];
            p.partial_sum[row * 2 + 1] = s.sum[h];
        }
    }
}

// One warp per (sequence, q head).
template <int Dim> __device__ __forceinline__ void decode_combine(const DecodeParams& p) {
    chain::begin();
    const uint64_t row = blockIdx.x;
    const int lane = threadIdx.x;
    const float* sums = p.partial_sum + row * p.splits * 2;
    float top = -INFINITY;
    for (uint32_t s = 0; s < p.splits; ++s) top = fmaxf(top, sums[s * 2]);
    float acc[Dim / 32] = {};
    float sum = 0.f;
    for (uint32_t s = 0; s < p.splits; ++s) {
        if (sums[s * 2] == -INFINITY) continue;
        const float weight = exp2f(sums[s * 2] - top);
        sum += weight * sums[s * 2 + 1];
#pragma unroll
        for (int i = 0; i < Dim / 32; ++i) acc[i] += weight * p.partial[(row * p.splits + s) * Dim + lane + i * 32];
    }
    const float norm = sum > 0.f ? 1.f / sum : 0.f;
#pragma unroll
    for (int i = 0; i < Dim / 32; ++i) p.out[row * Dim + lane + i * 32] = from_f32<bf16>(acc[i] * norm);
}
