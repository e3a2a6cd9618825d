#include "rmsnorm.cuh"

#define RMSNORM(NAME, ADD)                                                                     \
    extern "C" __global__ void __launch_bounds__(kNormWarps * 32)                              \
        NAME(const __grid_constant__ RmsNormParams<bf16> p) {                                  \
        rmsnorm<bf16, ADD>(p);                                                                 \
    }

RMSNORM(rmsnorm_bf16, false)
RMSNORM(add_rmsnorm_bf16, true)
