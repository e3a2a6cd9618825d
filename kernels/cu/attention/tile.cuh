// A page's keys or values of one head and layer in shared memory. Rows are padded by 16 bytes, so that
// 16-byte reads of neighbouring rows, and ldmatrix, fall into different banks.
#pragma once
#include "../common/cp_async.cuh"
#include "../common/pages.cuh"

template <int Dim> constexpr int kTileStride = Dim + 8;
template <int Dim> constexpr int kTileElements = kPageTokens * kTileStride<Dim>;

// All threads of the block copy; the caller commits, waits and synchronises.
template <typename T, int Dim, int Threads> __device__ __forceinline__ void load_tile(T* tile, const T* run) {
    constexpr int kRowVectors = Dim / 8;
#pragma unroll
    for (int i = threadIdx.x; i < kPageTokens * kRowVectors; i += Threads) {
        const int row = i / kRowVectors, column = i % kRowVectors * 8;
        cp_async16(tile + row * kTileStride<Dim> + column, run + row * Dim + column);
    }
}
