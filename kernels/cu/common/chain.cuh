// Programmatic dependent launch: the next kernel of a chain may be scheduled once all blocks of this one have
// started. It waits in turn, so the permission is given first: several kernels of a chain can then be on the
// device at once, and those that read weights do so while the ones before still compute.
// Every kernel calls `begin()` before its first access to memory that another kernel writes or reads.
// Both instructions do nothing in a kernel that was launched without the attribute.
#pragma once

namespace chain {
__device__ __forceinline__ void begin() {
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
}
}  // namespace chain
