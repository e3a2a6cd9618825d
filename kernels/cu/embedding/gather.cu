// out[t][:] = table[ids[t]][:]
//
// table [vocab][hidden], out [tokens][hidden], both bf16 with a row stride in elements; ids [tokens] u32.
// An id outside the table gives a row of NaN: it reads nothing, and the fault shows in the first logits.
// Rows are 16-byte aligned and hidden is a multiple of 8. One block per token; a thread moves 16 bytes at
// a time. Floor: 4 * hidden bytes per token.
#include "../common/chain.cuh"
#include "../common/element.cuh"

struct GatherParams {
    const bf16* table;
    const uint32_t* ids;
    bf16* out;
    uint64_t table_stride;
    uint64_t out_stride;
    uint32_t vocab;
    uint32_t hidden;
};

extern "C" __global__ void __launch_bounds__(128) gather_bf16(const __grid_constant__ GatherParams p) {
    chain::begin();
    const uint32_t id = p.ids[blockIdx.x];
    bf16* out = p.out + blockIdx.x * p.out_stride;
    const bool known = id < p.vocab;
    const uint4 nan = make_uint4(0x7fff7fffu, 0x7fff7fffu, 0x7fff7fffu, 0x7fff7fffu);
    const uint4* row = reinterpret_cast<const uint4*>(p.table + (known ? id : 0) * p.table_stride);
    for (uint32_t i = threadIdx.x; i < p.hidden / 8; i += blockDim.x) {
        reinterpret_cast<uint4*>(out)[i] = known ? row[i] : nan;
    }
}
