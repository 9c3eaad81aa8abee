// The markers of functions that run on the host and on the device from one source; INLINE for those
// whose arrays are registers once they are part of their caller.
//
// Loops over such arrays, on a CPU unrolled n times (UNROLL_DEVICE: as its compiler likes):
//   UNROLL(n)                 a few elements
//   UNROLL_ARRAY(size, n)     all of an array of so many, or a part of it
// On a GPU, whose registers have no index, they are unrolled as a whole; but for arrays of more
// than 32 elements, which lie in memory there, to the good of compile times.
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
#define QSTEP_UNROLL(n) QSTEP_PRAGMA(unroll)
#define QSTEP_UNROLL_DEVICE(size) QSTEP_PRAGMA(unroll((size) <= 32 ? 32 : 1))
#define QSTEP_UNROLL_ARRAY(size, n) QSTEP_UNROLL_DEVICE(size)
#elif defined(__CUDACC__)
#define QSTEP_UNROLL(n)
#define QSTEP_UNROLL_DEVICE(size)
#define QSTEP_UNROLL_ARRAY(size, n)
#else
#define QSTEP_UNROLL(n) QSTEP_PRAGMA(GCC unroll n)
#define QSTEP_UNROLL_DEVICE(size)
#define QSTEP_UNROLL_ARRAY(size, n) QSTEP_UNROLL(n)
#endif
