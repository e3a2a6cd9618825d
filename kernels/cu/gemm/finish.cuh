// What becomes of the sums of a product, from where its blocks left them in shared memory:
//   Store  out[t][o] = s                      bf16, [tokens][outputs]
//   Add    out[t][o] += s                     bf16, rounded once
//   Wide   out[t][o] = s                      f32
//   Silu   out[t][i] = silu(gate) * up        bf16, [tokens][outputs / 2]; of each 16 rows of the weight the
//                                             first 8 are gates and the others their ups
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

// The sum of output `row` of the block and token `t`, over the blocks of each split in turn.
// S gives the shape: sums [kSplits][kTokens][kStride], of which kRows are used.
template <typename S> __device__ __forceinline__ float total(const float* sums, int row, int t, uint32_t slices) {
    float sum = 0.f;
#pragma unroll
    for (int split = 0; split < S::kSplits; ++split) {
        const float* at = sums + (split * S::kTokens + t) * S::kStride + row;
        if (slices == 1) {
            sum += *at;
            continue;
        }
        // All blocks are asked before the first answer is used.
        float part[8];
#pragma unroll
        for (uint32_t rank = 0; rank < 8; ++rank) part[rank] = rank < slices ? cluster::read(at, rank) : 0.f;
#pragma unroll
        for (uint32_t rank = 0; rank < 8; ++rank) sum += part[rank];
    }
    return sum;
}

// Each block of a cluster finishes its share of the rows, whole groups of 16.
template <typename S, Finish End> __device__ __forceinline__ void finish(const float* sums, const Outputs& p) {
    const int rows = S::kRows / p.slices, begin = p.slice * rows;
    const int outs = End == Finish::Silu ? rows / 2 : rows;
    for (uint32_t i = threadIdx.x; i < outs * p.tokens; i += S::kThreads) {
        const int t = i / outs, o = i % outs;
        if (End == Finish::Silu) {
            const int row = begin + o / 8 * 16 + o % 8;
            if (p.first_row + row >= p.outputs) continue;
            const float gate = total<S>(sums, row, t, p.slices), up = total<S>(sums, row + 8, t, p.slices);
            const uint64_t at = uint64_t(t) * (p.outputs / 2) + (p.first_row + begin) / 2 + o;
            static_cast<bf16*>(p.out)[at] = from_f32<bf16>(gate / (1.f + __expf(-gate)) * up);
        } else {
            const int row = begin + o;
            if (p.first_row + row >= p.outputs) continue;
            const float sum = total<S>(sums, row, t, p.slices);
            const uint64_t at = uint64_t(t) * p.outputs + p.first_row + row;
            if (End == Finish::Wide) static_cast<float*>(p.out)[at] = sum;
            bf16* out = static_cast<bf16*>(p.out) + at;
            if (End == Finish::Store) *out = from_f32<bf16>(sum);
            if (End == Finish::Add) *out = from_f32<bf16>(to_f32(*out) + sum);
        }
    }
}
