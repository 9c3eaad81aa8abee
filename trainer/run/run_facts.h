// What a run ran on: build, machine, libraries, environment variables. Recorded at every start, so
// that a report can say it later and elsewhere.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qstep::trainer {

// Texts for people, by name.
struct FactGroup {
  std::string_view name;  // "build", "machine", "libraries", "environment"
  std::vector<std::pair<std::string, std::string>> facts;
};

// Of this process, one of so many ranks, on a backend of this name (Ops::name).
std::vector<FactGroup> run_facts(int n_ranks, std::string_view backend);

// Variables whose names begin with one of these decide how fast a run is.
bool is_recorded_variable(std::string_view name);

}  // namespace qstep::trainer
