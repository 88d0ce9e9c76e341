/* The packing buffers of gemm_f32, one set per thread, shared by the instruction sets. Scratch only: nothing survives a call. In
 * a shared library they take memory in threads that multiply large matrices and in no others. */
#include "kernels/kernels_internal.h"

_Thread_local ml__gemm_block_buffers ml__gemm_buffers;
