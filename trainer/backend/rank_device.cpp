#include "trainer/backend/rank_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "parallel/cpu_share.h"
#include "trainer/backend/backend.h"
#include "trainer/base/agreement.h"
#include "trainer/base/exit_reason.h"

namespace qstep::trainer {

namespace {

using ops::Error;
using ops::ExitCode;

constexpr const char* kOneEach =
    "a rank needs one of its own: start as many ranks on a node as it has GPUs";

// This rank among those of its node.
struct LocalRank {
  int rank = 0, size = 0;
};
LocalRank find_local_rank(const std::vector<std::string>& machines, int rank) {
  const std::string& mine = machines[static_cast<size_t>(rank)];
  return {.rank = static_cast<int>(std::count(machines.begin(), machines.begin() + rank, mine)),
          .size = static_cast<int>(std::count(machines.begin(), machines.end(), mine))};
}

// What a rank says: "1 0000:1b:00.0", it sees GPUs and has this one; "1!..." and "0!...", it has
// none and why, with and without one in sight.
constexpr char kTook = ' ', kRefused = '!';

std::string try_to_take(const LocalRank& local, const DeviceSeams& seams) {
  std::string why;
  const int n_gpus = seams.count_gpus(why);
  if (n_gpus == 0) return fmt::format("0{}{}", kRefused, why);
  const int index = n_gpus == 1 ? 0 : local.rank;
  if (index >= n_gpus) {
    return fmt::format("1{}{} ranks on this node, but {} GPUs: {}", kRefused, local.size, n_gpus,
                       kOneEach);
  }
  try {
    seams.nccl();
    return fmt::format("1{}{}", kTook, seams.take_gpu(index));
  } catch (const Error& error) {
    return fmt::format("1{}{}", kRefused, error.what());
  }
}

// Why they cannot all compute on GPUs; empty: they can.
std::string problem(const std::vector<std::string>& machines, const std::vector<std::string>& hosts,
                    const std::vector<std::string>& says) {
  const size_t n = says.size();
  for (size_t r = 0; r < n; ++r) {
    if (says[r][1] != kRefused) continue;
    const std::string why = says[r].substr(2);
    const bool all = std::all_of(says.begin(), says.end(),
                                 [&](const std::string& other) { return other == says[r]; });
    return all ? why : fmt::format("rank {} on {} has none: {}", r, hosts[r], why);
  }
  for (size_t r = 0; r < n; ++r) {
    for (size_t before = 0; before < r; ++before) {
      if (machines[r] != machines[before] || says[r] != says[before]) continue;
      return fmt::format("ranks {} and {} on {} see one and the same GPU: {}", before, r, hosts[r],
                         kOneEach);
    }
  }
  return "";
}

}  // namespace

RankDevice choose_device(Device wanted, parallel::Comm& hosts, const DeviceSeams& seams) {
  if (hosts.size() == 1 || wanted == Device::kCpu) return {.device = wanted, .note = ""};
  const std::vector<std::string> machines =
      parallel::all_gather_text(hosts, parallel::machine_id());
  const std::vector<std::string> names = parallel::all_gather_text(hosts, host_name());
  const std::vector<std::string> says =
      parallel::all_gather_text(hosts, try_to_take(find_local_rank(machines, hosts.rank()), seams));
  const std::string why = problem(machines, names, says);
  if (why.empty()) return {.device = Device::kCuda, .note = ""};
  if (wanted == Device::kCuda) throw AgreedError(ExitCode::kGpu, no_gpu_text(why));
  const bool in_sight =
      std::any_of(says.begin(), says.end(), [](const std::string& said) { return said[0] == '1'; });
  return {.device = Device::kCpu,
          .note = in_sight ? "computing on CPUs, as GPUs are not for every rank: " + why : ""};
}

}  // namespace qstep::trainer
