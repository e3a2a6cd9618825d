#include "prefill_hopper.cuh"

#define PREFILL(NAME, DIM)                                                  \
    extern "C" __global__ void __launch_bounds__(Flash<DIM>::kThreads, 1)   \
        NAME(const __grid_constant__ PrefillHopperParams p) {               \
        prefill<DIM>(p);                                                    \
    }

PREFILL(prefill_hopper_64, 64)
PREFILL(prefill_hopper_128, 128)
