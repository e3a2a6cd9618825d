// What becomes of the sums of a product, from where its blocks left them in shared memory:
//   Store  out[t][o] = s                      bf16, [tokens][outputs]
//   Add    out[t][o] += s                     bf16, rounded once
//   Wide   out[t][o] = s                      f32
//   Silu   out[t][i] = silu(gate) * up        bf16, [tokens][outputs / 2]; of each 16 rows of the weight the
//                                             first 8 are gates and the others their ups
// A thread finishes four neighbouring outputs of a token at a time; the blocks of a cluster share them evenly.
#pragma once
#include "../common/cluster.cuh"
#include "../common/element.cuh"

enum class Finish { Store, Add, Wide, Silu };

struct Outputs {
    void* out;
    uint32_t tokens;
    uint32_t outputs;
    uint32_t first_row;  // of the block
    uint32_t slice;      // of the inputs, the block's rank in its cluster
    uint32_t slices;
};

// The thread's place, as if it could change: what depends on it is computed where it is used, and no registers hold
// it through the products.
__device__ __forceinline__ uint32_t thread_anew() {
    uint32_t place;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(place));
    return place;
}

__device__ __forceinline__ void add4(float4& sum, const float4& part) {
    sum.x += part.x;
    sum.y += part.y;
    sum.z += part.z;
    sum.w += part.w;
}

// The sums of outputs `row` and on of the block, for token `t`, over the blocks of each split in turn.
// S gives the shape: sums [kSplits][kTokens][kStride], of which kRows are used.
template <typename S> __device__ __forceinline__ float4 total(const float* sums, int row, int t, uint32_t slices) {
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
    for (int split = 0; split < S::kSplits; ++split) {
        const float* at = sums + (split * S::kTokens + t) * S::kStride + row;
        if (slices == 1) {
            add4(sum, *reinterpret_cast<const float4*>(at));
            continue;
        }
        // All blocks are asked before the first answer is used.
        float4 part[8];
#pragma unroll
        for (uint32_t rank = 0; rank < 8; ++rank)
            part[rank] = rank < slices ? cluster::read4(at, rank) : make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
        for (uint32_t rank = 0; rank < 8; ++rank) add4(sum, part[rank]);
    }
    return sum;
}

__device__ __forceinline__ uint2 pack4(const float4& v) {
    return make_uint2(pack2<bf16>(v.x, v.y), pack2<bf16>(v.z, v.w));
}

__device__ __forceinline__ float4 unpack4(const uint2& raw) {
    bf16 lane[4];
    memcpy(lane, &raw, sizeof(raw));
    return make_float4(to_f32(lane[0]), to_f32(lane[1]), to_f32(lane[2]), to_f32(lane[3]));
}

__device__ __forceinline__ float silu(float gate, float up) { return gate / (1.f + __expf(-gate)) * up; }

template <typename S, Finish End> __device__ __forceinline__ void finish(const float* sums, const Outputs& p) {
    constexpr int kGroups = (End == Finish::Silu ? S::kRows / 2 : S::kRows) / 4;
    for (uint32_t i = p.slice * S::kThreads + thread_anew(); i < kGroups * p.tokens; i += p.slices * S::kThreads) {
        const int t = i / kGroups, o = i % kGroups * 4;
        if (End == Finish::Silu) {
            const int row = o / 8 * 16 + o % 8;
            if (p.first_row + row >= p.outputs) continue;
            const float4 gate = total<S>(sums, row, t, p.slices), up = total<S>(sums, row + 8, t, p.slices);
            const float4 v = make_float4(silu(gate.x, up.x), silu(gate.y, up.y), silu(gate.z, up.z), silu(gate.w, up.w));
            const uint64_t at = uint64_t(t) * (p.outputs / 2) + p.first_row / 2 + o;
            *reinterpret_cast<uint2*>(static_cast<bf16*>(p.out) + at) = pack4(v);
            continue;
        }
        if (p.first_row + o >= p.outputs) continue;
        const uint64_t at = uint64_t(t) * p.outputs + p.first_row + o;
        if (End == Finish::Wide) {
            *reinterpret_cast<float4*>(static_cast<float*>(p.out) + at) = total<S>(sums, o, t, p.slices);
            continue;
        }
        uint2* out = reinterpret_cast<uint2*>(static_cast<bf16*>(p.out) + at);
        float4 old = make_float4(0.f, 0.f, 0.f, 0.f);
        if (End == Finish::Add) old = unpack4(*out);
        float4 sum = total<S>(sums, o, t, p.slices);
        add4(sum, old);
        *out = pack4(sum);
    }
}
