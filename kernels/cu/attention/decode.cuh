// out[b][h][:] = softmax(scale * q[b][h] . K[b]) V[b] over the last `window` (0: all) of length[b] tokens,
// the new token's own key and value already in the pages.
//
// q and out [batch][q_heads][Dim] bf16; length is the page table's.
// A sequence of length 0 gives zeros. `splits` blocks, a cluster, share a sequence: block s takes an equal run
// of its pages, and each joins a part of the result from all of them in the order of s. The result depends
// on `splits`, never on the batch around the sequence.
// Mapping: a block owns one kv head and up to 8 of its q heads (grid.x = kv_heads * chunks). A warp takes 16
// tokens of each page, goes through keys and values from registers, and keeps its own softmax; the four meet
// at the end. Heads are rows of the matrix units (8 of 16 used). Keys: within 32 dimensions lane l % 4 holds
// dimensions 8 * (l % 4) .. + 8 of token l / 4, an order of the sum in which q is read the same way. Values:
// lane l holds 8 dimensions from 8 * (l / 4) on of tokens 2 * (l % 4) + {0, 1, 8, 9}, from which pairs of
// tokens are made. The next page's keys arrive during the softmax, its values during the next scores.
// Tokens past the length or before the window are not read. Floor: one read of K and V.
#pragma once
#include "../common/chain.cuh"
#include "../common/cluster.cuh"
#include "../common/mma.cuh"
#include "../common/pages.cuh"

struct DecodeParams {
    const bf16* q;
    bf16* out;
    PageTable table;
    Pages pages;
    uint32_t q_heads;
    uint32_t splits;
    uint32_t window;
    float scale_log2;  // scale * log2(e)
};

constexpr int kDecodeWarps = 4;
constexpr int kDecodeThreads = kDecodeWarps * 32;
constexpr int kDecodeHeads = 8;
constexpr uint32_t kMostSplits = 8;
constexpr int kWarpTokens = kPageTokens / kDecodeWarps;

// What the warps of a block bring together.
template <int Dim> struct DecodeShared {
    float acc[kDecodeWarps][kDecodeHeads][Dim + 4];
    float max[kDecodeWarps][kDecodeHeads], sum[kDecodeWarps][kDecodeHeads];
    float block_max[kDecodeHeads], block_sum[kDecodeHeads];
};

// Keys and values pass once: they leave the first-level cache to others.
__device__ __forceinline__ uint4 read_once(const void* address) {
    uint4 v;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(address)
                 : "memory");
    return v;
}

__device__ __forceinline__ uint4 zeros() { return make_uint4(0, 0, 0, 0); }

// Keys of tokens lane / 4 and lane / 4 + 8 of the warp's sixteen, which are positions `base` and on.
template <typename KV, int Dim>
__device__ __forceinline__ void fetch_keys(uint4 (&k)[2][Dim / 32], const KV* run, int base, int first, int end) {
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * kWarpTokens + lane / 4;
#pragma unroll
    for (int t = 0; t < 2; ++t) {
        const int token = base + lane / 4 + t * 8;
        const bool seen = token >= first && token < end;
        const KV* at = run + (row + t * 8) * Dim + lane % 4 * 8;
#pragma unroll
        for (int i = 0; i < Dim / 32; ++i) k[t][i] = seen ? read_once(at + i * 32) : zeros();
    }
}

template <typename KV, int Dim>
__device__ __forceinline__ void fetch_values(uint4 (&v)[Dim / 64][4], const KV* run, int base, int first, int end) {
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * kWarpTokens;
#pragma unroll
    for (int s = 0; s < 4; ++s) {
        const int offset = lane % 4 * 2 + s % 2 + s / 2 * 8, token = base + offset;
        const bool seen = token >= first && token < end;
        const KV* at = run + (row + offset) * Dim + lane / 4 * 8;
#pragma unroll
        for (int h = 0; h < Dim / 64; ++h) v[h][s] = seen ? read_once(at + h * 64) : zeros();
    }
}

// Queries of head lane / 4, in the pages' type and in the keys' order.
template <typename KV, int Dim>
__device__ __forceinline__ void load_query(uint4 (&q)[Dim / 32], const bf16* head, bool real) {
#pragma unroll
    for (int i = 0; i < Dim / 32; ++i) {
        q[i] = zeros();
        if (!real) continue;
        const Vec8<bf16> vec = load8(head + i * 32 + threadIdx.x % 4 * 8);
        uint32_t words[4];
#pragma unroll
        for (int w = 0; w < 4; ++w) words[w] = pack2<KV>(to_f32(vec.lane[2 * w]), to_f32(vec.lane[2 * w + 1]));
        q[i] = make_uint4(words[0], words[1], words[2], words[3]);
    }
}

template <typename KV, int Dim>
__device__ __forceinline__ void score(float (&s)[2][4], const uint4 (&q)[Dim / 32], const uint4 (&k)[2][Dim / 32]) {
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) s[t][e] = 0.f;
#pragma unroll
        for (int i = 0; i < Dim / 32; ++i) {
            const uint32_t low[4] = {q[i].x, 0, q[i].y, 0}, high[4] = {q[i].z, 0, q[i].w, 0};
            mma16816<KV>(s[t], low, k[t][i].x, k[t][i].y);
            mma16816<KV>(s[t], high, k[t][i].z, k[t][i].w);
        }
    }
}

// Element j of two vectors of eight, as a pair.
__device__ __forceinline__ uint32_t pair_of(const uint4& low, const uint4& high, int j) {
    const uint32_t a[4] = {low.x, low.y, low.z, low.w}, b[4] = {high.x, high.y, high.z, high.w};
    return __byte_perm(a[j / 2], b[j / 2], j % 2 ? 0x7632 : 0x5410);
}

// acc[h][j] gets dimensions h * 64 + 16 * (lane % 4) + {j, j + 8} of head lane / 4.
template <typename KV, int Dim>
__device__ __forceinline__ void add_values(float (&acc)[Dim / 64][8][4], const float (&p)[2][4], const uint4 (&v)[Dim / 64][4]) {
    const uint32_t a[4] = {pack2<KV>(p[0][0], p[0][1]), 0, pack2<KV>(p[1][0], p[1][1]), 0};
#pragma unroll
    for (int h = 0; h < Dim / 64; ++h) {
#pragma unroll
        for (int j = 0; j < 8; ++j)
            mma16816<KV>(acc[h][j], a, pair_of(v[h][0], v[h][1], j), pair_of(v[h][2], v[h][3], j));
    }
}

// Turns scores into weights; returns what earlier sums are scaled by. The four lanes of a head agree.
__device__ __forceinline__ float weigh(float (&s)[2][4], float& max, float& sum, float scale, int base, int first, int end) {
    float top = max;
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int token = base + t * 8 + threadIdx.x % 4 * 2 + e;
            s[t][e] = token >= first && token < end ? s[t][e] * scale : -INFINITY;
            top = fmaxf(top, s[t][e]);
        }
    }
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
    // A warp that has seen nothing yet keeps weights of zero instead of exp(-inf + inf).
    const float shift = top == -INFINITY ? 0.f : top, rescale = exp2f(max - shift);
    float added = 0.f;
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int e = 0; e < 2; ++e) added += s[t][e] = exp2f(s[t][e] - shift);
    }
    max = top;
    sum = sum * rescale + added;
    return rescale;
}

template <int Dim>
__device__ __forceinline__ void share(DecodeShared<Dim>& shared, const float (&acc)[Dim / 64][8][4], float max, float sum) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = lane / 4;
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    if (lane % 4 == 0) {
        shared.max[warp][head] = max;
        shared.sum[warp][head] = sum;
    }
#pragma unroll
    for (int h = 0; h < Dim / 64; ++h) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            float* at = shared.acc[warp][head] + h * 64 + lane % 4 * 16 + j;
            at[0] = acc[h][j][0];
            at[8] = acc[h][j][1];
        }
    }
}

// Leaves the block's sums where the first warp's were.
template <int Dim> __device__ __forceinline__ void join_warps(DecodeShared<Dim>& shared, int heads) {
    for (int i = threadIdx.x; i < heads * Dim; i += kDecodeThreads) {
        const int h = i / Dim, d = i % Dim;
        float top = -INFINITY, total = 0.f, value = 0.f;
#pragma unroll
        for (int w = 0; w < kDecodeWarps; ++w) top = fmaxf(top, shared.max[w][h]);
        const float shift = top == -INFINITY ? 0.f : top;
#pragma unroll
        for (int w = 0; w < kDecodeWarps; ++w) {
            const float weight = exp2f(shared.max[w][h] - shift);
            total += weight * shared.sum[w][h];
            value += weight * shared.acc[w][h][d];
        }
        shared.acc[0][h][d] = value;
        if (d == 0) {
            shared.block_max[h] = top;
            shared.block_sum[h] = total;
        }
    }
}

template <int Dim>
__device__ __forceinline__ float join_blocks(const DecodeShared<Dim>& shared, int h, int d, uint32_t splits) {
    if (splits == 1) return shared.block_sum[h] > 0.f ? shared.acc[0][h][d] / shared.block_sum[h] : 0.f;
    // All blocks are asked before the first answer is used: one after the other took most of a short sequence's time.
    float max[kMostSplits], sum[kMostSplits], acc[kMostSplits];
#pragma unroll
    for (uint32_t rank = 0; rank < kMostSplits; ++rank) {
        const bool real = rank < splits;
        max[rank] = real ? cluster::read(&shared.block_max[h], rank) : -INFINITY;
        sum[rank] = real ? cluster::read(&shared.block_sum[h], rank) : 0.f;
        acc[rank] = real ? cluster::read(&shared.acc[0][h][d], rank) : 0.f;
    }
    float top = -INFINITY, total = 0.f, value = 0.f;
#pragma unroll
    for (uint32_t rank = 0; rank < kMostSplits; ++rank) top = fmaxf(top, max[rank]);
    const float shift = top == -INFINITY ? 0.f : top;
#pragma unroll
    for (uint32_t rank = 0; rank < kMostSplits; ++rank) {
        const float weight = exp2f(max[rank] - shift);
        total += weight * sum[rank];
        value += weight * acc[rank];
    }
    return total > 0.f ? value / total : 0.f;
}

template <typename KV, int Dim> __device__ __forceinline__ void decode_attention(const DecodeParams& p) {
    __shared__ DecodeShared<Dim> shared;
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
    const uint64_t row = uint64_t(sequence) * p.q_heads + first_head;

    uint4 q[Dim / 32], k[2][Dim / 32], v[Dim / 64][4];
    float acc[Dim / 64][8][4] = {}, s[2][4], max = -INFINITY, sum = 0.f;
    const int head = threadIdx.x % 32 / 4, offset = threadIdx.x / 32 * kWarpTokens;
    load_query<KV, Dim>(q, p.q + (row + head) * Dim, head < heads);
    uint32_t id = 0;
    if (begin_page < end_page) {
        id = p.table.at(sequence, begin_page, p.pages);
        const int base = begin_page * kPageTokens + offset;
        fetch_keys<KV, Dim>(k, p.pages.run<KV>(id, kv_head, 0, Dim), base, first, end);
        fetch_values<KV, Dim>(v, p.pages.run<KV>(id, kv_head, 1, Dim), base, first, end);
    }
    for (int page = begin_page; page < end_page; ++page) {
        const int base = page * kPageTokens + offset, next = base + kPageTokens;
        const bool more = page + 1 < end_page;
        if (more) id = p.table.at(sequence, page + 1, p.pages);
        score<KV, Dim>(s, q, k);
        if (more) fetch_keys<KV, Dim>(k, p.pages.run<KV>(id, kv_head, 0, Dim), next, first, end);
        const float rescale = weigh(s, max, sum, p.scale_log2, base, first, end);
#pragma unroll
        for (int h = 0; h < Dim / 64; ++h) {
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                acc[h][j][0] *= rescale;
                acc[h][j][1] *= rescale;
            }
        }
        add_values<KV, Dim>(acc, s, v);
        if (more) fetch_values<KV, Dim>(v, p.pages.run<KV>(id, kv_head, 1, Dim), next, first, end);
    }
    share<Dim>(shared, acc, max, sum);
    __syncthreads();
    join_warps<Dim>(shared, heads);
    if (p.splits == 1) __syncthreads();
    else cluster::sync();
    // Each block of the cluster finishes its share of the elements.
    for (int i = threadIdx.x + split * kDecodeThreads; i < heads * Dim; i += kDecodeThreads * p.splits)
        p.out[row * Dim + i] = from_f32<bf16>(join_blocks<Dim>(shared, i / Dim, i % Dim, p.splits));
    // A block's shared memory lives until its peers have read it.
    if (p.splits != 1) cluster::sync();
}
