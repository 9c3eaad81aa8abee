#include "trainer/backend/rank_backend.h"

#include "parallel/nccl_world.h"
#include "trainer/backend/backend.h"

namespace qstep::trainer {

RankBackend::RankBackend(Device device, parallel::Comm& hosts,
                         parallel::CollectiveObserver* observer)
    : hosts_(hosts), ops_(make_backend(device)) {
  if (hosts.size() == 1 || ops_->in_host_memory()) return;
  gpus_ = parallel::make_nccl(hosts, ops_->stream(), observer);
}

std::string RankBackend::text(const Config& config) const {
  const std::string between = gpus_ ? ", ranks over " + parallel::nccl_name() : "";
  return backend_text(*ops_, config) + between;
}

}  // namespace qstep::trainer
