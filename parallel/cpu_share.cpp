#include "parallel/cpu_share.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <map>

#include "ops/error.h"
#include "parallel/world.h"

namespace qstep::parallel {

std::vector<int> parse_cpu_list(std::string_view list) {
  std::vector<int> cpus;
  const std::string_view whole = list;
  const auto take_number = [&] {
    int value = 0;
    const auto [end, error] = std::from_chars(list.data(), list.data() + list.size(), value);
    ops::check(error == std::errc() && value >= 0, fmt::format("not a list of CPUs: {:?}", whole));
    list.remove_prefix(static_cast<size_t>(end - list.data()));
    return value;
  };
  while (!list.empty()) {
    const int first = take_number();
    int last = first;
    if (list.starts_with("-")) {
      list.remove_prefix(1);
      last = take_number();
    }
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
    ops::check(list.empty() || list.front() == ',', fmt::format("not a list of CPUs: {:?}", whole));
    if (!list.empty()) list.remove_prefix(1);
  }
  return cpus;
}

std::string allowed_cpus() {
  constexpr std::string_view kKey = "Cpus_allowed_list:";
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with(kKey)) continue;
    const size_t first = line.find_first_of("0123456789", kKey.size());
    if (first != std::string::npos) return line.substr(first);
  }
  ops::check(false, "/proc/self/status does not say on which CPUs this process may run");
  return {};
}

std::string machine_id() {
  std::string id;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), id);
  return id;
}

int share_of_cpus(std::span<const std::vector<int>> cpus, size_t mine) {
  std::map<int, int> n_users;
  for (const std::vector<int>& of_process : cpus) {
    for (const int cpu : of_process) ++n_users[cpu];
  }
  double share = 0;
  for (const int cpu : cpus[mine]) share += 1.0 / n_users[cpu];
  constexpr double kRounding = 1e-6;  // three thirds are one
  return std::max(1, static_cast<int>(share + kRounding));
}

int cpu_share(Comm& comm) {
  const std::string machine = machine_id() + ' ';
  std::vector<std::vector<int>> cpus;
  size_t mine = 0;
  const std::vector<std::string> texts = all_gather_text(comm, machine + allowed_cpus());
  for (size_t r = 0; r < texts.size(); ++r) {
    if (!texts[r].starts_with(machine)) continue;
    if (static_cast<int>(r) == comm.rank()) mine = cpus.size();
    cpus.push_back(parse_cpu_list(std::string_view(texts[r]).substr(machine.size())));
  }
  return share_of_cpus(cpus, mine);
}

}  // namespace qstep::parallel
