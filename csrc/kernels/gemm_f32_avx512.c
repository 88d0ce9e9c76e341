#include "kernels/simd_avx512.h"
#include "kernels/gemm_f32.inc.h"
