// Paged keys and values: `[page][kv_head][layer][K|V][token][dim]`, 64 tokens in a page.
#pragma once
#include <stdint.h>

constexpr int kPageTokens = 64;

struct Pages {
    void* base;
    uint32_t count;
    uint32_t kv_heads;
    uint32_t layers;
    uint32_t layer;

    // First element of one run of `kPageTokens * Dim` elements; `part` is 0 for keys, 1 for values.
    template <typename T>
    __device__ __forceinline__ T* run(uint32_t page, uint32_t kv_head, uint32_t part, uint32_t dim) const {
        const uint64_t index = ((uint64_t(page) * kv_heads + kv_head) * layers + layer) * 2 + part;
        return static_cast<T*>(base) + index * kPageTokens * dim;
    }
};

// The pages of a batch of sequences: row b of `page` lists the pages of sequence b in token order.
struct PageTable {
    const uint32_t* page;    // [batch][stride]
    const uint32_t* length;  // [batch], tokens whose keys and values are in the pages
    uint64_t stride;
    uint32_t columns;
    uint32_t padding;

    // A length past the table's columns is cut, so that no row is read past its end.
    __device__ __forceinline__ int tokens(uint32_t sequence) const {
        return int(min(length[sequence], columns * kPageTokens));
    }

    // A page id past the arena is a broken block table: the kernel stops instead of reading foreign memory.
    __device__ __forceinline__ uint32_t at(uint32_t sequence, uint32_t index, const Pages& pages) const {
        const uint32_t id = page[sequence * stride + index];
        if (id >= pages.count) __trap();
        return id;
    }
};
