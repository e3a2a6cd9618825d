// Kernels that measure the machine: random bits, a pure read, and a kernel that does nothing.
#include "../common/chain.cuh"
#include "../common/element.cuh"

struct FillParams {
    uint32_t* out;
    uint64_t words;
    uint32_t seed;
    float scale;
};

__device__ __forceinline__ uint32_t mix(uint64_t x) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ull;
    return uint32_t(x >> 32);
}

// Pairs of bf16, uniform in (-scale, scale).
extern "C" __global__ void __launch_bounds__(256) fill_bf16(const __grid_constant__ FillParams p) {
    chain::begin();
    for (uint64_t i = blockIdx.x * uint64_t(blockDim.x) + threadIdx.x; i < p.words; i += uint64_t(gridDim.x) * blockDim.x) {
        const uint32_t bits = mix((uint64_t(p.seed) << 40) + i + 1);
        const float low = int16_t(bits & 0xffff) / 32768.f, high = int16_t(bits >> 16) / 32768.f;
        p.out[i] = pack2<bf16>(low * p.scale, high * p.scale);
    }
}

struct ReadParams {
    const uint4* in;
    uint32_t* sink;
    uint64_t vectors;
};

// Eight independent 16-byte reads per thread and turn. The sum leaves only if it equals a value that
// random input does not give, so the reads cannot be dropped and nothing is written.
extern "C" __global__ void __launch_bounds__(512) read_only(const __grid_constant__ ReadParams p) {
    chain::begin();
    uint32_t sum = 0;
    const uint64_t step = uint64_t(gridDim.x) * blockDim.x;
    uint64_t i = blockIdx.x * uint64_t(blockDim.x) + threadIdx.x;
    for (; i + 7 * step < p.vectors; i += 8 * step) {
        uint4 v[8];
#pragma unroll
        for (int u = 0; u < 8; ++u) v[u] = __ldcs(p.in + i + u * step);
#pragma unroll
        for (int u = 0; u < 8; ++u) sum += v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
    }
    for (; i < p.vectors; i += step) sum += p.in[i].x ^ p.in[i].w;
    if (sum == 0x5bd1e995u) *p.sink = sum;
}

struct EmptyParams {
    uint64_t nothing;
};

extern "C" __global__ void __launch_bounds__(128) empty(const __grid_constant__ EmptyParams) { chain::begin(); }
