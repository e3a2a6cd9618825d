// out[t][o] = sum_k x[t][k] * weight[o][k] for few tokens t: at most 8 * NTiles. The weight is read once, and
// that read is the time it takes.
//
// x [tokens][inputs] and weight [outputs][inputs] bf16, dense, 16-byte aligned, inputs a multiple of 32,
// outputs of 16 * MTiles * RowWarps. The finish is that of finish.cuh.
// Mapping: the weight is the 16-row operand of the matrix units and the tokens are its columns. A block of 8
// warps owns MTiles * 16 * RowWarps rows; its other warps, and the `slices` blocks of its cluster, share the
// inputs. Each lane reads the 16 bytes of a row that hold its operands of two products: within 32 inputs,
// lane l % 4 owns inputs 8 * (l % 4) .. + 8, an order of the sum in which x is read the same way. Sums meet
// in shared memory in a fixed order. Blocks stay and take tile after tile, as many blocks as the device holds: the
// next tile's weights are under way while a tile is finished.
// A weight does not depend on the kernel before: a block asks for its first weights, and only then waits
// for that kernel. Floor: one read of the weight.
#pragma once
#include "../common/chain.cuh"
#include "../common/mma.cuh"
#include "finish.cuh"

struct SkinnyParams {
    const bf16* x;
    const bf16* weight;
    void* out;
    uint32_t tokens;
    uint32_t outputs;
    uint32_t inputs;
    uint32_t slices;  // blocks of a cluster
};

constexpr int kSkinnyWarps = 8;
constexpr int kSkinnyThreads = kSkinnyWarps * 32;

// `Reads`: 16-byte reads of the weight that a lane has under way in each of its two stages.
template <int MTiles, int NTiles, int RowWarps, int Reads> struct Skinny {
    static constexpr int kRows = MTiles * 16 * RowWarps;
    static constexpr int kTokens = NTiles * 8;
    static constexpr int kThreads = kSkinnyThreads;
    static constexpr int kSplits = kSkinnyWarps / RowWarps;
    static constexpr int kChunks = Reads / (2 * MTiles);  // of 32 inputs, in a stage
    // The kernel of fewer reads is for grids of one wave.
    static constexpr bool kStays = Reads > 4;
    // Rows of sums are padded so that the lanes of a warp write to different banks.
    static constexpr int kStride = kRows + 4;
    static constexpr int kShared = kSplits * kTokens * kStride * int(sizeof(float));
};

__device__ __forceinline__ uint4 read_weight(const bf16* address) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(address));
    return v;
}

// Not the read-only path: another kernel has just written x.
__device__ __forceinline__ uint4 read_x(const bf16* address) {
    uint4 v;
    asm volatile("ld.global.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(address)
                 : "memory");
    return v;
}

// One stage of a warp's weights, of which `left` chunks are still to come. Chunks past them are zeros: they add nothing.
template <int MTiles, int Chunks>
__device__ __forceinline__ void fetch(uint4 (&a)[Chunks][MTiles][2], const bf16* weight, uint32_t inputs, int left) {
#pragma unroll
    for (int c = 0; c < Chunks; ++c) {
#pragma unroll
        for (int m = 0; m < MTiles; ++m) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                a[c][m][h] = make_uint4(0, 0, 0, 0);
                if (c < left) a[c][m][h] = read_weight(weight + uint64_t(m * 16 + h * 8) * inputs + c * 32);
            }
        }
    }
}

// All of a stage's x is asked for before the first product needs any.
template <int MTiles, int NTiles, int Chunks>
__device__ __forceinline__ void multiply(float (&acc)[MTiles][NTiles][4], const uint4 (&a)[Chunks][MTiles][2],
                                         const bf16* x, const SkinnyParams& p, int column, int left) {
    uint4 b[Chunks][NTiles];
#pragma unroll
    for (int c = 0; c < Chunks; ++c) {
#pragma unroll
        for (int n = 0; n < NTiles; ++n) {
            b[c][n] = make_uint4(0, 0, 0, 0);
            if (c < left && n * 8 + column < int(p.tokens)) b[c][n] = read_x(x + uint64_t(n * 8) * p.inputs + c * 32);
        }
    }
#pragma unroll
    for (int c = 0; c < Chunks; ++c) {
#pragma unroll
        for (int m = 0; m < MTiles; ++m) {
            const uint4 low = a[c][m][0], high = a[c][m][1];
            const uint32_t first[4] = {low.x, high.x, low.y, high.y}, second[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
            for (int n = 0; n < NTiles; ++n) {
                mma16816<bf16>(acc[m][n], first, b[c][n].x, b[c][n].y);
                mma16816<bf16>(acc[m][n], second, b[c][n].z, b[c][n].w);
            }
        }
    }
}

// One tile's share of a warp: sums over `count` chunks, whose first stage has been asked for. During the last
// products the first stage of the tile at `next` is asked for, if there is one.
template <int MTiles, int NTiles, int Chunks>
__device__ __forceinline__ void accumulate(float (&acc)[MTiles][NTiles][4], uint4 (&stage)[2][Chunks][MTiles][2],
                                           const bf16* weight, const bf16* next, const bf16* x, const SkinnyParams& p,
                                           int column, int count) {
#pragma unroll 1
    for (int left = count; left > 0; left -= 2 * Chunks) {
        fetch<MTiles, Chunks>(stage[1], weight + Chunks * 32, p.inputs, left - Chunks);
        multiply<MTiles, NTiles, Chunks>(acc, stage[0], x, p, column, left);
        weight += 2 * Chunks * 32;
        int ahead = left - 2 * Chunks;
        if (ahead <= 0) {
            weight = next;
            ahead = next ? count : 0;
        }
        fetch<MTiles, Chunks>(stage[0], weight, p.inputs, ahead);
        multiply<MTiles, NTiles, Chunks>(acc, stage[1], x + Chunks * 32, p, column, left - Chunks);
        x += 2 * Chunks * 32;
    }
}

template <typename S, int MTiles, int NTiles, int RowWarps>
__device__ __forceinline__ void leave(float* sums, const float (&acc)[MTiles][NTiles][4]) {
    const int thread = thread_anew(), lane = thread % 32, warp = thread / 32;
    const int first_row = warp % RowWarps * MTiles * 16 + lane / 4, first_token = warp / RowWarps * S::kTokens + lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < MTiles; ++m) {
#pragma unroll
        for (int n = 0; n < NTiles; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e)
                sums[(first_token + n * 8 + e % 2) * S::kStride + first_row + m * 16 + e / 2 * 8] = acc[m][n][e];
        }
    }
}

template <typename S> __device__ __forceinline__ uint32_t block_row(const SkinnyParams& p) {
    return blockIdx.x / p.slices * S::kRows;
}

template <int MTiles, int NTiles, int RowWarps, int Reads, Finish End>
__device__ __forceinline__ void skinny(const SkinnyParams& p) {
    using S = Skinny<MTiles, NTiles, RowWarps, Reads>;
    extern __shared__ __align__(16) float sums[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, quarter = lane % 4;
    const int parts = S::kSplits * p.slices, part = blockIdx.x % p.slices * S::kSplits + warp / RowWarps;
    const int begin = p.inputs / 32 * part / parts, count = p.inputs / 32 * (part + 1) / parts - begin;
    const uint32_t step = gridDim.x / p.slices * S::kRows;
    uint32_t first_row = block_row<S>(p);
    const bf16* weight = p.weight + uint64_t(first_row + warp % RowWarps * MTiles * 16 + group) * p.inputs + begin * 32 + quarter * 8;
    const bf16* x = p.x + uint64_t(group) * p.inputs + begin * 32 + quarter * 8;

    uint4 stage[2][S::kChunks][MTiles][2];
    fetch<MTiles, S::kChunks>(stage[0], weight, p.inputs, count);
    chain::begin();
    for (; first_row < p.outputs; first_row += step) {
        float acc[MTiles][NTiles][4] = {};
        const bf16* next = S::kStays && first_row + step < p.outputs ? weight + uint64_t(step) * p.inputs : nullptr;
        accumulate<MTiles, NTiles, S::kChunks>(acc, stage, weight, next, x, p, group, count);
        leave<S, MTiles, NTiles, RowWarps>(sums, acc);
        weight = next;
        if (p.slices == 1) __syncthreads();
        else cluster::sync();
        finish<S, End>(sums, {p.out, p.tokens, p.outputs, S::kStays ? first_row : block_row<S>(p), blockIdx.x % p.slices, p.slices});
        // The sums stay until all have read them, peers of the cluster as well.
        if (p.slices != 1) cluster::sync();
        else if (next) __syncthreads();
        if (!S::kStays) break;
    }
}
