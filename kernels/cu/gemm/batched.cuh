// out[t][o] = sum_k x[t][k] * weight[o][k] for tens of tokens: at most Tokens, of 32, 64 or 128. As in skinny.cuh
// the weight is the operand of many rows and is read once, but here both operands go through shared memory and
// the warpgroups' matrix units, which leaves registers and instructions for more tokens.
//
// x [tokens][inputs] and weight [outputs][inputs] bf16 by tensor maps with boxes of 64 inputs by Tokens and by
// 128 rows; what is past an edge arrives as zeros. inputs are a multiple of 8, outputs of 16. The finish is that
// of finish.cuh.
// Mapping: a block owns 128 outputs; its cluster of `slices` blocks shares the inputs. One warp asks for boxes of
// 64 inputs, `kStages` ahead; two warpgroups multiply 64 outputs each. Sums meet in shared memory in a fixed
// order, where the boxes were. A block asks for its first weights before it waits for the kernel before.
// Floor: one read of the weight.
#pragma once
#include "../common/chain.cuh"
#include "../common/wgmma.cuh"
#include "../common/tma.cuh"
#include "finish.cuh"

struct BatchedParams {
    TensorMap weight;
    TensorMap x;
    void* out;
    uint32_t tokens;
    uint32_t outputs;
    uint32_t inputs;
    uint32_t slices;
};

template <int Tokens> struct Batched {
    static constexpr int kRows = 128, kTokens = Tokens, kSplits = 1, kStride = kRows + 4;
    static constexpr int kThreads = 288, kConsumers = 8, kDepth = 64;
    // Columns of one instruction, and instructions beside each other.
    static constexpr int kColumns = Tokens < 64 ? Tokens : 64, kParts = Tokens / kColumns;
    static constexpr int kWeightBytes = kRows * kDepth * 2, kXBytes = Tokens * kDepth * 2;
    static constexpr int kStageBytes = kWeightBytes + kXBytes;
    // Two blocks fit into a multiprocessor's 227 KiB.
    static constexpr int kStages = Tokens == 32 ? 5 : Tokens == 64 ? 4 : 3;
    static constexpr int kSharedBytes = kStages * kStageBytes + 1024;
    static_assert(kStride * kTokens * 4 <= kStages * kStageBytes, "sums take the place of the boxes");
};

template <typename S> struct Boxes {
    unsigned char* base;
    uint64_t* full;
    uint64_t* empty;

    __device__ __forceinline__ unsigned char* weight(int stage) const { return base + stage * S::kStageBytes; }
    __device__ __forceinline__ unsigned char* x(int stage) const { return weight(stage) + S::kWeightBytes; }
};

// One thread: fills the stages in turn.
template <typename S>
__device__ __forceinline__ void produce(const BatchedParams& p, const Boxes<S>& boxes, int first_row, int begin, int end) {
    const int early = min(end - begin, S::kStages);
    prefetch_map(p.weight);
    prefetch_map(p.x);
    for (int i = 0; i < early; ++i) {
        barrier::expect(&boxes.full[i], S::kStageBytes);
        copy_box(boxes.weight(i), p.weight, (begin + i) * S::kDepth, first_row, &boxes.full[i]);
    }
    chain::begin();
    for (int i = 0; i < early; ++i) copy_box(boxes.x(i), p.x, (begin + i) * S::kDepth, 0, &boxes.full[i]);
    for (int i = early; i < end - begin; ++i) {
        const int stage = i % S::kStages;
        barrier::wait(&boxes.empty[stage], (i / S::kStages - 1) % 2);
        barrier::expect(&boxes.full[stage], S::kStageBytes);
        copy_box(boxes.weight(stage), p.weight, (begin + i) * S::kDepth, first_row, &boxes.full[stage]);
        copy_box(boxes.x(stage), p.x, (begin + i) * S::kDepth, 0, &boxes.full[stage]);
    }
}

// One warpgroup: its 64 rows by all tokens.
template <typename S>
__device__ __forceinline__ void consume(float (&acc)[S::kParts][S::kColumns / 2], const Boxes<S>& boxes, int group, int count) {
    for (int i = 0; i < count; ++i) {
        const int stage = i % S::kStages;
        barrier::wait(&boxes.full[stage], i / S::kStages % 2);
        const uint64_t a = wgmma::tile(boxes.weight(stage) + group * 64 * 128), b = wgmma::tile(boxes.x(stage));
        wgmma::begin();
#pragma unroll
        for (int k = 0; k < S::kDepth / 16; ++k) {
#pragma unroll
            // Addresses count 16 bytes: 16 inputs are 2, and kColumns tokens kColumns * 8.
            for (int n = 0; n < S::kParts; ++n) wgmma::multiply(acc[n], a + k * 2, b + n * S::kColumns * 8 + k * 2);
        }
        wgmma::commit();
        // The products before these have read their boxes.
        wgmma::wait<1>();
        if (i > 0 && threadIdx.x % 32 == 0) barrier::arrive(&boxes.empty[(i - 1) % S::kStages]);
    }
    wgmma::wait<0>();
#pragma unroll
    for (int n = 0; n < S::kParts; ++n) wgmma::settle(acc[n]);
}

template <int Tokens, Finish End> __device__ __forceinline__ void batched(const BatchedParams& p) {
    using S = Batched<Tokens>;
    extern __shared__ unsigned char raw[];
    __shared__ uint64_t full[S::kStages], empty[S::kStages];
    unsigned char* base = raw + (1024 - shared_address(raw) % 1024) % 1024;
    const Boxes<S> boxes = {base, full, empty};
    const uint32_t slice = blockIdx.x % p.slices, first_row = blockIdx.x / p.slices * S::kRows;
    const int chunks = (p.inputs + S::kDepth - 1) / S::kDepth;
    const int begin = chunks * slice / p.slices, end = chunks * (slice + 1) / p.slices;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::kStages; ++i) {
            barrier::init(&full[i], 1);
            barrier::init(&empty[i], S::kConsumers);
        }
        barrier::publish();
    }
    __syncthreads();

    float acc[S::kParts][S::kColumns / 2] = {};
    if (warp == S::kConsumers) {
        if (lane == 0) produce<S>(p, boxes, first_row, begin, end);
        __syncwarp();
    } else {
        consume<S>(acc, boxes, warp / 4, end - begin);
    }
    chain::begin();
    __syncthreads();
    float* sums = reinterpret_cast<float*>(base);
    if (warp < S::kConsumers) {
#pragma unroll
        for (int n = 0; n < S::kParts; ++n) {
#pragma unroll
            for (int j = 0; j < S::kColumns / 2; ++j) {
                const int row = warp * 16 + lane / 4 + j / 2 % 2 * 8;
                const int t = n * S::kColumns + j / 4 * 8 + lane % 4 * 2 + j % 2;
                sums[t * S::kStride + row] = acc[n][j];
            }
        }
    }
    if (p.slices == 1) __syncthreads();
    else cluster::sync();
    finish<S, End>(sums, {p.out, p.tokens, p.outputs, first_row, slice, p.slices});
    // A block's shared memory lives until its peers have read it.
    if (p.slices != 1) cluster::sync();
}
