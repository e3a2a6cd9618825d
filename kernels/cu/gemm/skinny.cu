#include "skinny.cuh"

#define SKINNY(NAME, BLOCKS, M, N, ROWS, READS, FINISH)                                                \
    extern "C" __global__ void __launch_bounds__(kSkinnyThreads, BLOCKS)                               \
        NAME(const __grid_constant__ SkinnyParams p) {                                                 \
        skinny<M, N, ROWS, READS, Finish::FINISH>(p);                                                  \
    }

// `many` is for grids of more blocks than the device holds two of on each multiprocessor, but not three.
#define SKINNY_OF(FINISH, SUFFIX)                          \
    SKINNY(skinny_8_##SUFFIX, 2, 1, 1, 1, 8, FINISH)       \
    SKINNY(skinny_8_many_##SUFFIX, 3, 1, 1, 1, 4, FINISH)  \
    SKINNY(skinny_16_##SUFFIX, 2, 1, 2, 2, 8, FINISH)

SKINNY_OF(Store, store)
SKINNY_OF(Add, add)
SKINNY_OF(Wide, wide)
SKINNY_OF(Silu, silu)
