// A CUDA driver that takes kernels and runs none: with it cuDNN makes plans for GPUs that are only
// described, on a machine that has neither a GPU nor a driver. Loaded under the driver's name in
// the driver's place; where NVIDIA's stub of it refuses everything, this one loads a library and
// finds a kernel in it.
namespace {
constexpr int kStubLibrary = 34;  // CUDA_ERROR_STUB_LIBRARY
char nothing = 0;
}  // namespace

extern "C" {

int cuLibraryLoadData(void** library) {
  *library = &nothing;
  return 0;
}
int cuLibraryGetKernel(void** kernel) {
  *kernel = &nothing;
  return 0;
}
int cuKernelSetAttribute() { return 0; }

// What else cuDNN looks up.
#define QSTEP_REFUSED(name) \
  int name() { return kStubLibrary; }
QSTEP_REFUSED(cuCtxGetCurrent)
QSTEP_REFUSED(cuCtxGetDevice)
QSTEP_REFUSED(cuCtxGetLimit)
QSTEP_REFUSED(cuCtxPopCurrent)
QSTEP_REFUSED(cuCtxPushCurrent)
QSTEP_REFUSED(cuDeviceGet)
QSTEP_REFUSED(cuDeviceGetAttribute)
QSTEP_REFUSED(cuDeviceGetCount)
QSTEP_REFUSED(cuDevicePrimaryCtxRelease)
QSTEP_REFUSED(cuDevicePrimaryCtxReset)
QSTEP_REFUSED(cuDevicePrimaryCtxRetain)
QSTEP_REFUSED(cuDriverGetVersion)
QSTEP_REFUSED(cuFuncGetAttribute)
QSTEP_REFUSED(cuFuncSetAttribute)
QSTEP_REFUSED(cuGetErrorName)
QSTEP_REFUSED(cuGetErrorString)
QSTEP_REFUSED(cuInit)
QSTEP_REFUSED(cuKernelGetAttribute)
QSTEP_REFUSED(cuKernelGetFunction)
QSTEP_REFUSED(cuLaunchCooperativeKernel)
QSTEP_REFUSED(cuLaunchKernel)
QSTEP_REFUSED(cuLaunchKernelEx)
QSTEP_REFUSED(cuLibraryLoadFromFile)
QSTEP_REFUSED(cuLibraryUnload)
QSTEP_REFUSED(cuLinkAddData)
QSTEP_REFUSED(cuLinkAddData_v2)
QSTEP_REFUSED(cuLinkAddFile_v2)
QSTEP_REFUSED(cuLinkComplete)
QSTEP_REFUSED(cuLinkCreate)
QSTEP_REFUSED(cuLinkCreate_v2)
QSTEP_REFUSED(cuLinkDestroy)
QSTEP_REFUSED(cuMemcpyDtoH_v2)
QSTEP_REFUSED(cuModuleGetFunction)
QSTEP_REFUSED(cuModuleGetGlobal_v2)
QSTEP_REFUSED(cuModuleLoadData)
QSTEP_REFUSED(cuModuleLoadDataEx)
QSTEP_REFUSED(cuModuleLoadFatBinary)
QSTEP_REFUSED(cuModuleUnload)
QSTEP_REFUSED(cuOccupancyMaxActiveBlocksPerMultiprocessor)
QSTEP_REFUSED(cuOccupancyMaxPotentialClusterSize)
QSTEP_REFUSED(cuStreamGetCtx)
QSTEP_REFUSED(cuStreamGetGreenCtx)
QSTEP_REFUSED(cuStreamSynchronize)
QSTEP_REFUSED(cuTensorMapEncodeIm2col)
QSTEP_REFUSED(cuTensorMapEncodeTiled)
#undef QSTEP_REFUSED

}  // extern "C"
