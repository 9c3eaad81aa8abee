// The markers of functions that run on the host and on the device from one source; INLINE for those
// whose arrays are registers once they are part of their caller, UNROLL for loops over such arrays.
#pragma once

#define QSTEP_PRAGMA(text) _Pragma(#text)

#if defined(__CUDACC__)
#define QSTEP_HD __host__ __device__
#define QSTEP_HD_INLINE __host__ __device__ __forceinline__
#else
#define QSTEP_HD
#define QSTEP_HD_INLINE __attribute__((always_inline)) inline
#endif

#if defined(__CUDA_ARCH__)
#define QSTEP_UNROLL(n) QSTEP_PRAGMA(unroll n)
#elif defined(__CUDACC__)
#define QSTEP_UNROLL(n)
#else
#define QSTEP_UNROLL(n) QSTEP_PRAGMA(GCC unroll n)
#endif
