// out[t][i] = silu(gate[t][i]) * up[t][i], silu(x) = x / (1 + exp(-x))
//
// in [tokens][2 * width]: eight gates, the eight ups that belong to them, the next eight gates, and so on,
// so that a matrix product whose tile is 16 rows of weights has both halves in one thread. out
// [tokens][width], bf16, row strides in elements, 16-byte aligned, width a multiple of 8. A thread owns 8
// outputs; grid.x spans the width, grid.y the tokens.
// Floor: 6 bytes per output element.
#include "../common/chain.cuh"
#include "../common/element.cuh"

struct SiluMulParams {
    const bf16* in;
    bf16* out;
    uint64_t in_stride;
    uint64_t out_stride;
    uint32_t width;
    uint32_t tokens;
};

extern "C" __global__ void __launch_bounds__(256) silu_mul_bf16(const __grid_constant__ SiluMulParams p) {
    chain::begin();
    const uint32_t column = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (column >= p.width) return;
    for (uint32_t token = blockIdx.y; token < p.tokens; token += gridDim.y) {
        const bf16* row = p.in + token * p.in_stride;
        Vec8<bf16> gate = load8(row + 2 * column);
        const Vec8<bf16> up = load8(row + 2 * column + 8);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float x = to_f32(gate.lane[i]);
            gate.lane[i] = from_f32<bf16>(x / (1.f + __expf(-x)) * to_f32(up.lane[i]));
        }
        store8(p.out + token * p.out_stride + column, gate);
    }
}
