// out[i][h][:] = softmax(scale * q[i][h] . K) V for the new tokens i of ragged sequences, each over the
// tokens at or before its own position, and only the last `window` of them (0: all). For pages of f16; those of
// bf16 have prefill_hopper.cuh.
//
// q and out [tokens][q_heads][Dim] bf16; sequence b owns rows start[b] .. start[b + 1]; the page table's
// length counts a sequence's tokens with the new ones, whose keys and values are already in the pages.
// q is converted to the pages' type for the matrix units; weights are rounded to it, sums are f32.
// Mapping: grid (64-row tiles of q, q heads, sequences); a warp owns 16 rows. Pages stream through one
// shared tile of keys and one of values: the next keys arrive during the softmax, the next values during
// the next scores. A sequence's result does not depend on the batch around it.
// Floor: 4 * Dim FLOP per visible (query, key) pair and head.
#pragma once
#include "../common/chain.cuh"
#include "../common/mma.cuh"
#include "tile.cuh"

struct PrefillParams {
    const bf16* q;
    bf16* out;
    const uint32_t* start;
    PageTable table;
    Pages pages;
    uint32_t q_heads;
    uint32_t window;
    float scale_log2;  // scale * log2(e)
    uint32_t tokens;   // rows of q: start is cut to it
};

constexpr int kPrefillThreads = 128;
constexpr int kPrefillRows = 64;

// The rows a lane owns and what they see: queries `row` and `row + 8` of the sequence.
struct Rows {
    int row;
    int query_count;
    int position;  // of `row`
    int window;

    __device__ __forceinline__ bool sees(int half, int token) const {
        const int last = position + half * 8;
        return token <= last && (window == 0 || token > last - window);
    }
};

template <typename KV, int Dim>
__device__ __forceinline__ void load_queries(uint32_t (&a)[Dim / 16][4], const bf16* q, uint64_t stride, const Rows& rows) {
    const int column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int k = 0; k < Dim / 16; ++k) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = rows.row + i % 2 * 8, at = k * 16 + i / 2 * 8 + column;
            const bool real = row < rows.query_count;
            const bf16* pair = q + (real ? row : 0) * stride + at;
            a[k][i] = real ? pack2<KV>(to_f32(pair[0]), to_f32(pair[1])) : 0;
        }
    }
}

template <typename KV, int Dim>
__device__ __forceinline__ void scores(float (&s)[8][4], const uint32_t (&q)[Dim / 16][4], const KV* keys) {
    const int lane = threadIdx.x % 32, matrix = lane / 8;
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
        const KV* row = keys + ((n + matrix / 2) * 8 + lane % 8) * kTileStride<Dim> + matrix % 2 * 8;
#pragma unroll
        for (int e = 0; e < 4; ++e) s[n][e] = s[n + 1][e] = 0.f;
#pragma unroll
        for (int k = 0; k < Dim / 16; ++k) {
            uint32_t b[4];
            ldmatrix4(b, row + k * 16);
            mma16816<KV>(s[n], q[k], b[0], b[1]);
            mma16816<KV>(s[n + 1], q[k], b[2], b[3]);
        }
    }
}

// Exponentiates one lane's scores of row `half`, after masking them unless the whole tile sees the whole page,
// and returns what earlier sums are scaled by. Maxima are of scores before scaling, which keeps their order.
template <bool Masked>
__device__ __forceinline__ float soften(float (&s)[8][4], int half, float& max, float& sum, int base, float scale,
                                        const Rows& rows) {
    float top = max;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int e = half * 2; e < half * 2 + 2; ++e) {
            const int token = base + n * 8 + threadIdx.x % 4 * 2 + e % 2;
            if (Masked && !rows.sees(half, token)) s[n][e] = -INFINITY;
            top = fmaxf(top, s[n][e]);
        }
    }
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
    // A row that has seen nothing yet keeps weights of zero instead of exp(-inf + inf).
    const float shift = top == -INFINITY ? 0.f : top * scale, rescale = exp2f(max * scale - shift);
    float added = 0.f;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int e = half * 2; e < half * 2 + 2; ++e) added += s[n][e] = exp2f(s[n][e] * scale - shift);
    }
    max = top;
    sum = sum * rescale + added;
    return rescale;
}

template <typename KV, int Dim>
__device__ __forceinline__ void accumulate(float (&acc)[Dim / 8][4], const float (&s)[8][4], const KV* values) {
    const int lane = threadIdx.x % 32, matrix = lane / 8;
#pragma unroll
    for (int k = 0; k < kPageTokens / 16; ++k) {
        const uint32_t a[4] = {pack2<KV>(s[2 * k][0], s[2 * k][1]), pack2<KV>(s[2 * k][2], s[2 * k][3]),
                               pack2<KV>(s[2 * k + 1][0], s[2 * k + 1][1]), pack2<KV>(s[2 * k + 1][2], s[2 * k + 1][3])};
        const KV* row = values + (k * 16 + matrix % 2 * 8 + lane % 8) * kTileStride<Dim> + matrix / 2 * 8;
#pragma unroll
        for (int n = 0; n < Dim / 8; n += 2) {
            uint32_t b[4];
            ldmatrix4_transposed(b, row + n * 8);
            mma16816<KV>(acc[n], a, b[0], b[1]);
            mma16816<KV>(acc[n + 1], a, b[2], b[3]);
        }
    }
}

template <typename KV, int Dim>
__device__ __forceinline__ void store_output(const float (&acc)[Dim / 8][4], const float (&sum)[2],
                                             bf16* out, uint64_t stride, const Rows& rows) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float total = sum[half] + __shfl_xor_sync(0xffffffffu, sum[half], 1);
        total += __shfl_xor_sync(0xffffffffu, total, 2);
        const int row = rows.row + half * 8;
        if (row >= rows.query_count) continue;
        const float norm = total > 0.f ? 1.f / total : 0.f;
        uint32_t* pairs = reinterpret_cast<uint32_t*>(out + row * stride + threadIdx.x % 4 * 2);
#pragma unroll
        for (int n = 0; n < Dim / 8; ++n)
            pairs[n * 4] = pack2<bf16>(acc[n][half * 2] * norm, acc[n][half * 2 + 1] * norm);
    }
}

// Tokens past the sequence hold whatever the page held before; a weight of zero does not silence a NaN.
template <typename KV, int Dim> __device__ __forceinline__ void clear_values(KV* values, int from) {
    for (int i = from * kTileStride<Dim> + threadIdx.x; i < kTileElements<Dim>; i += kPrefillThreads)
        values[i] = from_f32<KV>(0.f);
}

template <typename KV, int Dim> __device__ __forceinline__ void prefill(const PrefillParams& p) {
    __shared__ __align__(16) KV keys[kTileElements<Dim>];
    __shared__ __align__(16) KV values[kTileElements<Dim>];
    const uint32_t sequence = blockIdx.z, head = blockIdx.y, kv_head = head / (p.q_heads / p.pages.kv_heads);
    chain::begin();
    const int first_row = min(p.start[sequence], p.tokens), queries = int(min(p.start[sequence + 1], p.tokens)) - first_row;
    // The tiles that see most come first, so that no long one is left over at the end.
    const int tile = (gridDim.x - 1 - blockIdx.x) * kPrefillRows, length = p.table.tokens(sequence);
    if (tile >= queries) return;

    const uint64_t stride = uint64_t(p.q_heads) * Dim, offset = first_row * stride + uint64_t(head) * Dim;
    const int row = tile + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    const int past = length - queries, window = int(p.window);
    const Rows rows = {row, queries, past + row, window};
    uint32_t q[Dim / 16][4];
    load_queries<KV, Dim>(q, p.q + offset, stride, rows);

    const int end = min(past + min(tile + kPrefillRows, queries), length);
    const int begin = window == 0 ? 0 : max(past + tile - window + 1, 0);
    const int begin_page = begin / kPageTokens, end_page = (end + kPageTokens - 1) / kPageTokens;
    const auto fetch = [&](KV* target, int page, uint32_t part) {
        if (page < end_page) {
            const uint32_t id = p.table.at(sequence, page, p.pages);
            load_tile<KV, Dim, kPrefillThreads>(target, p.pages.run<KV>(id, kv_head, part, Dim));
        }
        cp_async_commit();
    };

    float acc[Dim / 8][4] = {}, s[8][4], max_score[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    fetch(keys, begin_page, 0);
    fetch(values, begin_page, 1);
    for (int page = begin_page; page < end_page; ++page) {
        cp_async_wait<1>();
        __syncthreads();
        scores<KV, Dim>(s, q, keys);
        __syncthreads();
        fetch(keys, page + 1, 0);
        const bool open = (page + 1) * kPageTokens <= past + tile + 1 &&
                          (window == 0 || page * kPageTokens > past + tile + kPrefillRows - 1 - window);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int base = page * kPageTokens;
            const float rescale = open ? soften<false>(s, half, max_score[half], sum[half], base, p.scale_log2, rows)
                                       : soften<true>(s, half, max_score[half], sum[half], base, p.scale_log2, rows);
#pragma unroll
            for (int n = 0; n < Dim / 8; ++n) {
                acc[n][half * 2] *= rescale;
                acc[n][half * 2 + 1] *= rescale;
            }
        }
        cp_async_wait<1>();
        __syncthreads();
        if ((page + 1) * kPageTokens > length) {
            clear_values<KV, Dim>(values, length - page * kPageTokens);
            __syncthreads();
        }
        accumulate<KV, Dim>(acc, s, values);
        __syncthreads();
        fetch(values, page + 1, 1);
    }
    store_output<KV, Dim>(acc, sum, p.out + offset, stride, rows);
}
