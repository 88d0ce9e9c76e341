#include "kernels/simd_avx512.h"
#include "kernels/optimizer_f32.inc.h"
