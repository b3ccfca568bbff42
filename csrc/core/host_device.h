// Marks functions of the core that CUDA kernels call too; nothing to any other compiler.
#pragma once

#ifdef __CUDACC__
#define LWFM_HOST_DEVICE __host__ __device__
#else
#define LWFM_HOST_DEVICE
#endif
