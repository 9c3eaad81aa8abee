#include "trainer/machine/machine.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <vector>

namespace qstep::trainer {

namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// "key<separator> value" of a list such as /proc/cpuinfo; the first of that key.
std::string value_of(const std::string& path, std::string_view key, char separator) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t at = line.find(separator);
    if (at == std::string::npos) continue;
    const size_t start = line.find_first_not_of(" \t", at + 1);
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "";
}

std::optional<double> number_in(const std::string& text) {
  std::istringstream stream(text);
  double x = 0;
  if (stream >> x) return x;
  return std::nullopt;  // "max", or nothing
}

// Folders of a cgroup controller that bind this process, from its own group up to the root. Version
// 2 has one tree ("0::/path"), version 1 one per controller ("3:cpu,cpuacct:/path").
std::vector<std::string> cgroup_folders(std::string_view controller) {
  std::vector<std::string> folders;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool v2 = names == ",,";
    if (!v2 && names.find(fmt::format(",{},", controller)) == std::string::npos) continue;
    const std::string root = v2 ? "/sys/fs/cgroup" : fmt::format("/sys/fs/cgroup/{}", controller);
    std::string path = line.substr(second + 1);
    while (path.starts_with('/') && path.size() > 1) {
      folders.push_back(root + path);
      path.resize(path.rfind('/'));
    }
    folders.push_back(root);
  }
  return folders;
}

// Cores worth of time that the cgroup grants, infinity without a limit.
double cpu_quota() {
  double cores = INFINITY;
  for (const std::string& folder : cgroup_folders("cpu")) {
    std::istringstream v2(first_line(folder + "/cpu.max"));  // "150000 100000", "max 100000"
    double quota = 0, period = 0;
    if (v2 >> quota >> period && period > 0) cores = std::min(cores, quota / period);
    const auto v1_quota = number_in(first_line(folder + "/cpu.cfs_quota_us"));
    const auto v1_period = number_in(first_line(folder + "/cpu.cfs_period_us"));
    if (v1_quota && v1_period && *v1_quota > 0 && *v1_period > 0) {
      cores = std::min(cores, *v1_quota / *v1_period);
    }
  }
  return cores;
}

struct MemoryLimit {
  double limit = INFINITY;
  double used = 0;
};
MemoryLimit memory_limit() {
  MemoryLimit tightest;
  for (const std::string& folder : cgroup_folders("memory")) {
    for (const auto& [limit_file, usage_file] :
         {std::pair{"/memory.max", "/memory.current"},
          std::pair{"/memory.limit_in_bytes", "/memory.usage_in_bytes"}}) {
      const auto limit = number_in(first_line(folder + limit_file));
      if (!limit || *limit >= tightest.limit) continue;
      tightest = {*limit, number_in(first_line(folder + usage_file)).value_or(0)};
    }
  }
  return tightest;
}

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

// Every L3 is named by the list of processors that share it, and counted once.
int64_t l3_bytes_of(const std::vector<int>& cpus) {
  std::set<std::string> seen;
  int64_t total = 0;
  for (const int cpu : cpus) {
    const std::string cache = fmt::format("/sys/devices/system/cpu/cpu{}/cache/index3", cpu);
    const std::string size = first_line(cache + "/size");  // "32768K"
    if (size.empty() || !seen.insert(first_line(cache + "/shared_cpu_list")).second) continue;
    const int64_t unit = size.back() == 'M' ? 1 << 20 : size.back() == 'K' ? 1 << 10 : 1;
    total += static_cast<int64_t>(number_in(size).value_or(0)) * unit;
  }
  return total;
}

int64_t meminfo_bytes(std::string_view key) {
  return static_cast<int64_t>(number_in(value_of("/proc/meminfo", key, ':')).value_or(0)) * 1024;
}

std::string transparent_huge_pages() {
  const std::string modes = first_line("/sys/kernel/mm/transparent_hugepage/enabled");
  const size_t open = modes.find('['), close = modes.find(']');
  if (open == std::string::npos || close == std::string::npos) return "unknown";
  return modes.substr(open + 1, close - open - 1);
}

}  // namespace

Machine read_machine() {
  Machine m;
  m.cpu_name = value_of("/proc/cpuinfo", "model name", ':');
  if (m.cpu_name.empty()) m.cpu_name = "unknown";

  const std::vector<int> cpus = allowed_cpus();
  const double quota = cpu_quota();
  const int64_t online = sysconf(_SC_NPROCESSORS_ONLN);
  const int64_t allowed = cpus.empty() ? online : static_cast<int64_t>(cpus.size());
  m.cores = std::max<int64_t>(1, online);
  m.usable_cores = allowed;
  if (allowed < online) m.cores_limit = "affinity";
  if (quota < static_cast<double>(allowed)) {
    m.usable_cores = std::max<int64_t>(1, static_cast<int64_t>(quota));
    m.cores_limit = fmt::format("cgroup quota of {:g} cores", quota);
  }

  const std::string flags = " " + value_of("/proc/cpuinfo", "flags", ':') + " ";
  const auto has = [&](std::string_view flag) {
    return flags.find(fmt::format(" {} ", flag)) != std::string::npos;
  };
  m.avx2 = has("avx2") && has("fma");
  m.avx512 = has("avx512f") && has("avx512bw") && has("avx512dq") && has("avx512vl");
  m.avx512_bf16 = m.avx512 && has("avx512_bf16");
  m.amx_bf16 = has("amx_bf16") && has("amx_tile");

  m.l3_bytes = l3_bytes_of(cpus);
  m.memory_bytes = meminfo_bytes("MemTotal");
  m.available_bytes = meminfo_bytes("MemAvailable");
  if (const MemoryLimit group = memory_limit(); group.limit < static_cast<double>(m.memory_bytes)) {
    m.memory_bytes = static_cast<int64_t>(group.limit);
    m.available_bytes =
        std::min(m.available_bytes, static_cast<int64_t>(std::max(0.0, group.limit - group.used)));
  }
  m.huge_pages = transparent_huge_pages();
  return m;
}

std::string_view describe(Bf16Support support) {
  switch (support) {
    case Bf16Support::kTiles:
      return "native, in tiles (AMX): BF16 multiplies several times faster than FP32";
    case Bf16Support::kDotProducts:
      return "native dot products (AVX512_BF16): BF16 multiplies about twice as fast as FP32";
    case Bf16Support::kEmulated:
      return "emulated, there is no instruction: BF16 halves memory but multiplies no faster than "
             "FP32";
  }
  return "";
}

Disk read_disk(const std::string& folder) {
  Disk disk;
  struct statvfs stat {};
  if (statvfs(folder.c_str(), &stat) == 0) {
    disk.free_bytes = static_cast<int64_t>(stat.f_bavail) * static_cast<int64_t>(stat.f_frsize);
  }
  std::string name = folder + "/qstep-write-test-XXXXXX";
  const int file = mkstemp(name.data());
  if (file >= 0) {
    disk.writable = write(file, "x", 1) == 1;
    close(file);
    unlink(name.c_str());
  }
  return disk;
}

}  // namespace qstep::trainer
