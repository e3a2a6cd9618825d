// The best of each part of row r after every logit became
//   logit / temperature[r] + g(seed[r], index[r], token),    g = -log(-log(u)), u uniform in (0, 1)
// whose largest is a draw from the softmax at that temperature (Gumbel's trick); temperature 0 leaves the logits
// as they are. u is a function of its three arguments alone, so neither the batch nor the order of steps changes
// what is drawn. `argmax_pick` finds the best of the parts.
//
// logits [rows][vocab] f32, row stride in elements; the numbers of rows [rows], each 32 bits: of seeds the low and
// the high half apart. NaN never wins. Floor: one read of the logits; at a temperature the logarithms.
#include "../common/chain.cuh"
#include "best.cuh"

struct DrawParams {
    const float* logits;
    const float* temperature;
    const uint32_t* index;
    const uint32_t* seed_low;
    const uint32_t* seed_high;
    Best* partial;  // [rows][parts]
    uint64_t stride;
    uint32_t vocab;
    uint32_t parts;
};

// SplitMix64's output function.
__device__ __forceinline__ uint64_t mix(uint64_t z) {
    z += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// -log(u) is taken as -log(1 - v) of v = 1 - u: large g, which win, come of small v, which are exact.
__device__ __forceinline__ float gumbel(uint64_t row, uint32_t token) {
    const uint64_t bits = mix(row ^ mix(token)) >> 24;
    const float v = (float(bits) + 0.5f) * (1.f / float(1ull << 40));
    return -logf(-log1pf(-v));
}

extern "C" __global__ void __launch_bounds__(kBestWarps * 32) draw_f32(const __grid_constant__ DrawParams p) {
    chain::begin();
    const float* row = p.logits + blockIdx.y * p.stride;
    const float temperature = p.temperature[blockIdx.y];
    if (temperature == 0.f) {
        best_of_part(p.vocab, p.parts, p.partial, [&](uint32_t i) { return row[i]; });
        return;
    }
    const uint64_t seed = uint64_t(p.seed_high[blockIdx.y]) << 32 | p.seed_low[blockIdx.y];
    const uint64_t key = mix(seed + mix(uint64_t(p.index[blockIdx.y]) ^ 0x53484f414c000002ull));
    const float inverse = 1.f / temperature;
    best_of_part(p.vocab, p.parts, p.partial, [&](uint32_t i) { return row[i] * inverse + gumbel(key, i); });
}
