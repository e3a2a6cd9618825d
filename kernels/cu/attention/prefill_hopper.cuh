// As prefill.cuh, for bf16 pages, on the warpgroups' matrix units: softmax(scale * q . K) V for the new tokens of
// ragged sequences, each over the tokens at or before its own position, and only the last `window` of them (0: all).
//
// q and out [tokens][q_heads][Dim] bf16, q by a tensor map with boxes of 64 elements by 64 rows; the arena by one
// with the same boxes over its rows of Dim elements. Weights are rounded to bf16, sums are f32.
// Mapping: a block owns 128 queries of one head. One warp asks for keys and values two pages at a time, two such
// tiles ahead; two warpgroups own 64 queries each. Scores of a tile are computed while the values before them are
// summed, and the warpgroups take turns, so that one's softmax meets the other's products. The queries that see
// most come first, and the heads that share keys lie side by side. A sequence's result does not depend on the
// batch around it.
// Floor: 4 * Dim FLOP per visible (query, key) pair and head.
#pragma once
#include "../common/chain.cuh"
#include "../common/element.cuh"
#include "../common/pages.cuh"
#include "../common/tma.cuh"
#include "../common/wgmma.cuh"

struct PrefillHopperParams {
    TensorMap q;
    TensorMap arena;
    bf16* out;
    const uint32_t* start;
    PageTable table;
    Pages pages;
    uint32_t q_heads;
    uint32_t window;
    float scale_log2;  // scale * log2(e)
    uint32_t tokens;   // rows of q: start is cut to it
};

template <int Dim> struct Flash {
    static constexpr int kRows = 128, kTokens = 2 * kPageTokens, kStages = 2;
    static constexpr int kConsumers = 8, kThreads = 384;
    // A box is 64 rows of 128 bytes; rows of Dim elements are kHalves boxes beside each other.
    static constexpr int kBox = 8192, kHalves = Dim / 64;
    static constexpr int kQueryBytes = kRows * Dim * 2, kTileBytes = kTokens * Dim * 2;
    static constexpr int kSharedBytes = kQueryBytes + 2 * kStages * kTileBytes + 1024;
};

// What a block works on.
struct Span {
    int head;
    int kv_head;
    int sequence;
    int first_row;   // of the sequence in q
    int queries;     // of the sequence
    int tile;        // the block's first query
    int past;        // tokens before the first query
    int end;         // of the tokens in the pages that are asked for: the last tile may lack a page, and that page be part full
    int begin_page;
    int end_page;
    int tiles;       // of two pages
};

template <int Dim> __device__ __forceinline__ Span span_of(const PrefillHopperParams& p) {
    Span s;
    s.head = blockIdx.x;
    s.kv_head = s.head / (p.q_heads / p.pages.kv_heads);
    s.sequence = blockIdx.z;
    s.first_row = min(p.start[s.sequence], p.tokens);
    s.queries = int(min(p.start[s.sequence + 1], p.tokens)) - s.first_row;
    s.tile = (gridDim.y - 1 - blockIdx.y) * Flash<Dim>::kRows;
    const int length = p.table.tokens(s.sequence);
    s.past = length - s.queries;
    const int end = min(s.past + min(s.tile + Flash<Dim>::kRows, s.queries), length);
    const int begin = p.window == 0 ? 0 : max(s.past + s.tile - int(p.window) + 1, 0);
    s.begin_page = begin / kPageTokens;
    s.end_page = (end + kPageTokens - 1) / kPageTokens;
    s.end = min(length, s.end_page * kPageTokens);
    s.tiles = max(s.end_page - s.begin_page + 1, 0) / 2;
    return s;
}

// Shared memory: queries, then keys and values of each stage.
template <int Dim> struct Tiles {
    using F = Flash<Dim>;
    unsigned char* base;
    uint64_t* queries_full;
    uint64_t* full;   // [stage][keys, values]
    uint64_t* empty;  // likewise

    __device__ __forceinline__ unsigned char* tile(int stage, int part) const {
        return base + F::kQueryBytes + (stage * 2 + part) * F::kTileBytes;
    }
};

// One thread: asks for the queries, then fills the stages in turn.
template <int Dim>
__device__ __forceinline__ void produce(const PrefillHopperParams& p, const Tiles<Dim>& tiles, const Span& span) {
    using F = Flash<Dim>;
    barrier::expect(tiles.queries_full, F::kQueryBytes);
    for (int box = 0; box < 2 * F::kHalves; ++box)
        copy_box(tiles.base + box * F::kBox, p.q, span.head * Dim + box % F::kHalves * 64,
                 span.first_row + span.tile + box / F::kHalves * 64, tiles.queries_full);
    for (int i = 0; i < span.tiles; ++i) {
        const int page = span.begin_page + i * 2, count = min(span.end_page - page, 2), stage = i % F::kStages;
        const uint32_t ids[2] = {p.table.at(span.sequence, page, p.pages),
                                 count < 2 ? 0 : p.table.at(span.sequence, page + 1, p.pages)};
#pragma unroll
        for (int part = 0; part < 2; ++part) {
            uint64_t* full = &tiles.full[stage * 2 + part];
            if (i >= F::kStages) barrier::wait(&tiles.empty[stage * 2 + part], (i / F::kStages - 1) % 2);
            barrier::expect(full, count * F::kHalves * F::kBox);
            for (int k = 0; k < count; ++k) {
                const int row = (((ids[k] * p.pages.kv_heads + span.kv_head) * p.pages.layers + p.pages.layer) * 2 + part) *
                                kPageTokens;
#pragma unroll
                for (int half = 0; half < F::kHalves; ++half)
                    copy_box(tiles.tile(stage, part) + (half * 2 + k) * F::kBox, p.arena, half * 64, row, full);
            }
        }
    }
}

// The rows a lane owns and what they see: queries `row` and `row + 8` of the sequence.
struct Rows {
    int row;
    int position;  // of `row`
    int first;     // position of the warpgroup's first query
    int window;

    __device__ __forceinline__ bool sees(int half, int token) const {
        const int last = position + half * 8;
        return token <= last && (window == 0 || token > last - window);
    }
};

// The running softmax of a lane's two rows. Maxima are of scores before scaling, which keeps their order.
struct Softmax {
    float top[2] = {-INFINITY, -INFINITY};
    float sum[2] = {};
    float rescale[2];
};

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Turns scores into weights, after masking them unless the whole warpgroup sees the whole tile.
template <bool Masked>
__device__ __forceinline__ void soften(float (&s)[64], Softmax& softmax, int base, float scale, const Rows& rows) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float top = softmax.top[half];
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            float& x = s[i / 2 * 4 + half * 2 + i % 2];
            if (Masked && !rows.sees(half, base + i / 2 * 8 + threadIdx.x % 4 * 2 + i % 2)) x = -INFINITY;
            top = fmaxf(top, x);
        }
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        // A row that has seen nothing yet keeps weights of zero instead of exp(-inf + inf).
        const float shift = top == -INFINITY ? 0.f : top * scale;
        softmax.rescale[half] = exp2_fast(softmax.top[half] * scale - shift);
        float added = 0.f;
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            float& x = s[i / 2 * 4 + half * 2 + i % 2];
            added += x = exp2_fast(fmaf(x, scale, -shift));
        }
        softmax.top[half] = top;
        softmax.sum[half] = softmax.sum[half] * softmax.rescale[half] + added;
    }
}

template <int Dim>
__device__ __forceinline__ void soften(float (&s)[64], Softmax& softmax, const PrefillHopperParams& p, const Span& span,
                                       const Rows& rows, int index) {
    const int base = (span.begin_page + index * 2) * kPageTokens;
    const bool open = base + Flash<Dim>::kTokens <= rows.first + 1 && (rows.window == 0 || base > rows.first + 63 - rows.window);
    if (open) soften<false>(s, softmax, base, p.scale_log2, rows);
    else soften<true>(s, softmax, base, p.scale_log2, rows);
}

template <int Dim> __device__ __forceinline__ void scores(float (&s)[64], uint64_t queries, uint64_t keys) {
#pragma unroll
    for (int k = 0; k < Dim / 16; ++k)  // addresses count 16 bytes: 16 elements are 2
        wgmma::multiply(s, queries + k / 4 * 512 + k % 4 * 2, keys + k / 4 * 1024 + k % 4 * 2, k > 0);
    wgmma::commit();
}

template <int Dim>
__device__ __forceinline__ void accumulate(float (&acc)[Dim / 2], const uint32_t (&weights)[8][4], uint64_t values) {
#pragma unroll
    for (int k = 0; k < 8; ++k) wgmma::multiply_columns(acc, weights[k], values + k * 128);  // 16 tokens are 2048 bytes
    wgmma::commit();
}

// The accumulator's lanes are those of the left operand: 16 tokens are two groups of 8 columns.
__device__ __forceinline__ void narrow(uint32_t (&weights)[8][4], const float (&s)[64]) {
#pragma unroll
    for (int i = 0; i < 32; ++i)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(weights[i / 4][i % 4]) : "f"(s[i * 2 + 1]), "f"(s[i * 2]));
}

// Places past the sequence hold whatever the page or the tile held before; a weight of zero does not silence a NaN. Both
// warpgroups clear what they read: they need not wait for each other, and write the same zeros.
template <int Dim> __device__ __forceinline__ void clear_values(unsigned char* tile, int from, int group) {
    for (int i = max(from, 0) * 8 + threadIdx.x % 128; i < Flash<Dim>::kTokens * 8; i += 128) {
#pragma unroll
        for (int half = 0; half < Flash<Dim>::kHalves; ++half)
            reinterpret_cast<uint4*>(tile)[half * 1024 + i] = uint4{};
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory");
}

// Named barriers 3 and 4: the warpgroup whose turn it is enqueues its products.
__device__ __forceinline__ void await_turn(int group) { asm volatile("bar.sync %0, 256;" ::"r"(3 + group) : "memory"); }
__device__ __forceinline__ void give_turn(int group) { asm volatile("bar.arrive %0, 256;" ::"r"(4 - group) : "memory"); }

template <int Dim>
__device__ __forceinline__ void store_output(const float (&acc)[Dim / 2], const Softmax& softmax,
                                             const PrefillHopperParams& p, const Span& span, const Rows& rows) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float total = softmax.sum[half] + __shfl_xor_sync(0xffffffffu, softmax.sum[half], 1);
        total += __shfl_xor_sync(0xffffffffu, total, 2);
        const int row = rows.row + half * 8;
        if (row >= span.queries) continue;
        const float norm = total > 0.f ? 1.f / total : 0.f;
        bf16* out = p.out + (uint64_t(span.first_row + row) * p.q_heads + span.head) * Dim;
        uint32_t* pairs = reinterpret_cast<uint32_t*>(out) + threadIdx.x % 4;
#pragma unroll
        for (int n = 0; n < Dim / 8; ++n)
            pairs[n * 4] = pack2<bf16>(acc[n * 4 + half * 2] * norm, acc[n * 4 + half * 2 + 1] * norm);
    }
}

// One warpgroup: its 64 queries by all tiles.
template <int Dim>
__device__ __forceinline__ void consume(const PrefillHopperParams& p, const Tiles<Dim>& tiles, const Span& span) {
    using F = Flash<Dim>;
    // The same in all lanes, and known to be.
    const int group = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0), lane = threadIdx.x % 32;
    const int row = span.tile + group * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4;
    const Rows rows = {row, span.past + row, span.past + span.tile + group * 64, int(p.window)};
    const uint64_t queries = wgmma::tile(tiles.base + group * F::kHalves * F::kBox);
    const auto full = [&](int i, int part) {
        barrier::wait(&tiles.full[i % F::kStages * 2 + part], i / F::kStages % 2);
    };
    const auto release = [&](int i, int part) {
        if (lane == 0) barrier::arrive(&tiles.empty[i % F::kStages * 2 + part]);
    };
    const auto keys = [&](int i) { return wgmma::tile(tiles.tile(i % F::kStages, 0)); };
    const auto values = [&](int i) { return wgmma::columns(tiles.tile(i % F::kStages, 1), F::kTokens * 128); };

    float acc[Dim / 2] = {}, s[64];
    uint32_t weights[8][4];
    Softmax softmax;
    barrier::wait(tiles.queries_full, 0);
    if (span.tiles > 0) {
        full(0, 0);
        wgmma::begin();
        scores<Dim>(s, queries, keys(0));
        wgmma::wait<0>();
        wgmma::settle(s);
        release(0, 0);
        soften<Dim>(s, softmax, p, span, rows, 0);
        narrow(weights, s);
    }
    if (group == 1 && span.tiles > 1) give_turn(group);
    for (int i = 1; i < span.tiles; ++i) {
        full(i, 0);
        await_turn(group);
        wgmma::begin();
        scores<Dim>(s, queries, keys(i));
        full(i - 1, 1);
        wgmma::begin();
        accumulate<Dim>(acc, weights, values(i - 1));
        if (group == 0 || i + 1 < span.tiles) give_turn(group);
        wgmma::wait<1>();
        wgmma::settle(s);
        release(i, 0);
        soften<Dim>(s, softmax, p, span, rows, i);
        wgmma::wait<0>();
        wgmma::settle(acc);
        release(i - 1, 1);
#pragma unroll
        for (int n = 0; n < Dim / 2; ++n) acc[n] *= softmax.rescale[n / 2 % 2];
        narrow(weights, s);
    }
    if (span.tiles > 0) {
        const int last = span.tiles - 1, left = span.end - (span.begin_page + last * 2) * kPageTokens;
        full(last, 1);
        if (left < F::kTokens) clear_values<Dim>(tiles.tile(last % F::kStages, 1), left, group);
        wgmma::begin();
        accumulate<Dim>(acc, weights, values(last));
        wgmma::wait<0>();
        wgmma::settle(acc);
    }
    store_output<Dim>(acc, softmax, p, span, rows);
}

template <int Dim> __device__ __forceinline__ void prefill(const PrefillHopperParams& p) {
    using F = Flash<Dim>;
    extern __shared__ unsigned char raw[];
    __shared__ uint64_t queries_full, full[F::kStages * 2], empty[F::kStages * 2];
    const Tiles<Dim> tiles = {raw + (1024 - shared_address(raw) % 1024) % 1024, &queries_full, full, empty};
    chain::begin();
    const Span span = span_of<Dim>(p);
    if (span.tile >= span.queries) return;
    if (threadIdx.x == 0) {
        barrier::init(&queries_full, 1);
        for (int i = 0; i < F::kStages * 2; ++i) {
            barrier::init(&full[i], 1);
            barrier::init(&empty[i], F::kConsumers);
        }
        barrier::publish();
    }
    __syncthreads();
    // Registers that the asking warpgroup does not need go to the others.
    if (threadIdx.x >= F::kConsumers * 32) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == F::kConsumers * 32) produce<Dim>(p, tiles, span);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        consume<Dim>(p, tiles, span);
    }
}
