#include "kernels/simd_avx2.h"
#include "kernels/optimizer_f32.inc.h"
