#include "kernels/simd_avx2.h"
#include "kernels/gemm_f32.inc.h"
