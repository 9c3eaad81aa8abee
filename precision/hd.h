// The marker of functions that run on the host and on the device from one source.
#pragma once

#if defined(__CUDACC__)
#define QSTEP_HD __host__ __device__
#else
#define QSTEP_HD
#endif
