// Programmatic dependent launch: the next kernel of a chain may be scheduled while this one runs.
// Every kernel calls `begin()` before its first access to memory that another kernel writes or reads.
// Both instructions do nothing in a kernel that was launched without the attribute.
#pragma once

namespace chain {
__device__ __forceinline__ void begin() {
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
}  // namespace chain
