// Moves every running sequence of a decode batch one token on: its new token will be at the position that was
// its length, in the slot that its page table gives, and the next draw is another one.
//
// position, slot, length, index [batch]. A row of length 0 is padding and stays as it is. A position past the
// row's pages, or a page id past the arena, gets slot 0xffffffff: nothing will be written there.
#include "../common/chain.cuh"
#include "../common/pages.cuh"

struct AdvanceParams {
    const uint32_t* page;  // [batch][stride]
    uint64_t stride;
    uint32_t* length;
    uint32_t* position;
    uint32_t* slot;
    uint32_t* index;
    uint32_t columns;
    uint32_t pages;
    uint32_t batch;
    uint32_t padding;
};

extern "C" __global__ void __launch_bounds__(256) advance(const __grid_constant__ AdvanceParams p) {
    chain::begin();
    const uint32_t row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= p.batch) return;
    const uint32_t position = p.length[row], column = position / kPageTokens;
    if (position == 0) return;
    const uint32_t id = column < p.columns ? p.page[row * p.stride + column] : 0xffffffffu;
    p.position[row] = position;
    p.length[row] = position + 1;
    p.index[row] += 1;
    p.slot[row] = id < p.pages ? id * kPageTokens + position % kPageTokens : 0xffffffffu;
}
