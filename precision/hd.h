// The marker of functions that run on the host and on the device from one source; and of those
// whose arrays are registers once they are part of their caller.
#pragma once

#if defined(__CUDACC__)
#define QSTEP_HD __host__ __device__
#define QSTEP_HD_INLINE __host__ __device__ __forceinline__
#else
#define QSTEP_HD
#define QSTEP_HD_INLINE __attribute__((always_inline)) inline
#endif
