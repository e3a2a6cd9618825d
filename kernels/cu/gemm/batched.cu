#include "batched.cuh"

#define BATCHED(NAME, TOKENS, FINISH)                                                                  \
    extern "C" __global__ void __launch_bounds__(Batched<TOKENS>::kThreads, 2)                         \
        NAME(const __grid_constant__ BatchedParams p) {                                                \
        batched<TOKENS, Finish::FINISH>(p);                                                            \
    }

#define BATCHED_OF(FINISH, SUFFIX)                 \
    BATCHED(batched_32_##SUFFIX, 32, FINISH)       \
    BATCHED(batched_64_##SUFFIX, 64, FINISH)       \
    BATCHED(batched_128_##SUFFIX, 128, FINISH)

BATCHED_OF(Store, store)
BATCHED_OF(Add, add)
BATCHED_OF(Wide, wide)
BATCHED_OF(Silu, silu)
