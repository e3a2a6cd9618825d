#include "prefill.cuh"

#define PREFILL(NAME, KV, DIM)                                                                 \
    extern "C" __global__ void __launch_bounds__(kPrefillThreads)                              \
        NAME(const __grid_constant__ PrefillParams p) {                                        \
        prefill<KV, DIM>(p);                                                                   \
    }

PREFILL(prefill_f16_64, f16, 64)
PREFILL(prefill_f16_128, f16, 128)
