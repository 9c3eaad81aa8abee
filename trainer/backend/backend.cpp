#include "trainer/backend/backend.h"

#include "ops/attention/attention_path.h"

namespace qstep::trainer {

std::unique_ptr<ops::Ops> make_backend(Device device) {
  if (device == Device::kCpu) return ops::make_cpu_ops();
  std::string why;
  if (std::unique_ptr<ops::Ops> cuda = ops::make_cuda_ops(why)) return cuda;
  if (device == Device::kCuda) throw ops::Error(ops::ExitCode::kGpu, no_gpu_text(why));
  return ops::make_cpu_ops();
}

std::string no_gpu_text(std::string_view why) {
  return fmt::format(
      "device cuda was asked for, but {}; choose run.device (--device) cpu or auto, and see `qstep "
      "doctor`",
      why);
}

std::unique_ptr<ops::Ops> ask_gpu(std::string& why) {
  try {
    return ops::make_cuda_ops(why);
  } catch (const ops::Error& e) {
    if (e.code() != ops::ExitCode::kOutOfMemory) throw;
    why = e.what();
    return nullptr;
  }
}

std::string backend_text(const ops::Ops& ops, const Config& config) {
  std::string text(ops.name());
  if (config.run.device == Device::kCpu || ops.in_host_memory()) return text;
  const ModelConfig& m = config.model;
  const ops::AttentionShape shape{.batch = config.train.micro_batch,
                                  .seq_len = config.train.seq_len,
                                  .n_heads = m.n_heads,
                                  .n_kv_heads = m.n_kv_heads,
                                  .head_dim = m.head_dim};
  return text + ", attention by " +
         ops::attention_path_on_gpu(shape, config.compute_dtype(), ops::Direction::kBackward);
}

}  // namespace qstep::trainer
