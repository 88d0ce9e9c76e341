#include "kernels/simd_avx512.h"
#include "kernels/dense_f32.inc.h"
