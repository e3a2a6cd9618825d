#include "skinny.cuh"

#define SKINNY(NAME, BLOCKS, M, N, ROWS, FINISH)                                                       \
    extern "C" __global__ void __launch_bounds__(kSkinnyThreads, BLOCKS)                               \
        NAME(const __grid_constant__ SkinnyParams p) {                                                 \
        skinny<M, N, ROWS, Finish::FINISH>(p);                                                         \
    }

#define SKINNY_OF(FINISH, SUFFIX)                    \
    SKINNY(skinny_8_##SUFFIX, 2, 1, 1, 1, FINISH)    \
    SKINNY(skinny_16_##SUFFIX, 2, 1, 2, 2, FINISH)   \
    SKINNY(skinny_32_##SUFFIX, 2, 2, 4, 4, FINISH)   \
    SKINNY(skinny_64_##SUFFIX, 1, 2, 8, 8, FINISH)

SKINNY_OF(Store, store)
SKINNY_OF(Add, add)
SKINNY_OF(Wide, wide)
SKINNY_OF(Silu, silu)
