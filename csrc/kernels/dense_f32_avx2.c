#include "kernels/simd_avx2.h"
#include "kernels/dense_f32.inc.h"
