// Blocks of a cluster read each other's shared memory.
#pragma once
#include "cp_async.cuh"

namespace cluster {
// Every thread of every block arrives before any goes on; writes to shared memory before are seen after. Not the
// aligned form: the lanes of a warp come here from loops of unequal length.
__device__ __forceinline__ void sync() {
    asm volatile("barrier.cluster.arrive;\nbarrier.cluster.wait;" ::: "memory");
}

__device__ __forceinline__ uint32_t address_at(const float* shared, uint32_t rank) {
    uint32_t address;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(shared)), "r"(rank));
    return address;
}

// What block `rank` holds where this block holds `shared`.
__device__ __forceinline__ float read(const float* shared, uint32_t rank) {
    float value;
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(value) : "r"(address_at(shared, rank)) : "memory");
    return value;
}

// As above, four from a multiple of 16 bytes on.
__device__ __forceinline__ float4 read4(const float* shared, uint32_t rank) {
    float4 v;
    asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(address_at(shared, rank))
                 : "memory");
    return v;
}
}  // namespace cluster
