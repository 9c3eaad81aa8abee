#include "ops/cpu_library.h"

#include <fmt/format.h>

#include <dnnl.hpp>

namespace qstep::ops {

std::string onednn_version() {
  const dnnl_version_t* v = dnnl_version();
  return fmt::format("{}.{}.{}", v->major, v->minor, v->patch);
}

std::string_view onednn_instructions() {
  switch (dnnl_get_effective_cpu_isa()) {
    case dnnl_cpu_isa_sse41:
      return "SSE4.1";
    case dnnl_cpu_isa_avx:
      return "AVX";
    case dnnl_cpu_isa_avx2:
      return "AVX2";
    case dnnl_cpu_isa_avx2_vnni:
      return "AVX2 VNNI";
    case dnnl_cpu_isa_avx512_core:
      return "AVX-512";
    case dnnl_cpu_isa_avx512_core_vnni:
      return "AVX-512 VNNI";
    case dnnl_cpu_isa_avx512_core_bf16:
      return "AVX-512 BF16";
    case dnnl_cpu_isa_avx512_core_amx:
      return "AMX";
    default:
      return "another instruction set";
  }
}

std::string gemm_kernel(Dtype dtype) {
  try {
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    const auto type =
        dtype == Dtype::kBf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
    const dnnl::memory::desc square({256, 256}, type, dnnl::memory::format_tag::ab);
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::matmul::primitive_desc product(engine, square, square, square);
#else
    const dnnl::matmul::primitive_desc product(dnnl::matmul::desc(square, square, square), engine);
#endif
    return product.impl_info_str();
  } catch (const dnnl::error&) {
    return "";
  }
}

std::string_view built_for() {
#if defined(__AVX512BF16__)
  return "AVX-512 with BF16";
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__)
  return "AVX-512";
#elif defined(__AVX2__) && defined(__FMA__)
  return "AVX2 with FMA";
#else
  return "the baseline of this architecture";
#endif
}

}  // namespace qstep::ops
