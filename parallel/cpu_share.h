// Which CPUs a process may use, and what is left of them when others may use them too. Arithmetic
// and texts of the kernel.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qstep::parallel {

// Numbers in a list of the kernel's kind, "0-3,8": 0 1 2 3 8. An internal Error for others.
std::vector<int> parse_cpu_list(std::string_view list);

// CPUs that this process may run on, as such a list.
std::string allowed_cpus();

// Names this machine until it starts anew; containers of one machine give the same.
std::string machine_id();

// The share of the process `mine` of several on one machine, of which process i may run on cpus[i]:
// the sum over its CPUs of 1 / (number of processes that may run there), rounded down, at least 1.
int share_of_cpus(std::span<const std::vector<int>> cpus, size_t mine);

}  // namespace qstep::parallel
