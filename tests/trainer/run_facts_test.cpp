#include "trainer/run/run_facts.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "trainer/machine/libraries.h"

namespace qstep::trainer {
namespace {

using Facts = std::map<std::string, std::string>;

Facts facts_of(std::string_view group, int n_ranks, std::string_view backend) {
  for (const FactGroup& g : run_facts(n_ranks, backend)) {
    if (g.name == group) return {g.facts.begin(), g.facts.end()};
  }
  return {};
}

TEST(RunFacts, SayWhatTheRunUses) {
  EXPECT_EQ("cpu", facts_of("machine", 1, "cpu")["device"]);
  EXPECT_EQ("NVIDIA H200", facts_of("machine", 1, "NVIDIA H200")["device"]);
  for (const Library& library : gpu_libraries()) {
    EXPECT_FALSE(facts_of("libraries", 2, "cpu").contains(library.name));
    EXPECT_EQ(library.present, facts_of("libraries", 1, "NVIDIA H200").contains(library.name))
        << library.name;
  }
  const Library mpi = mpi_library();
  EXPECT_FALSE(facts_of("libraries", 1, "cpu").contains(mpi.name));
  EXPECT_EQ(mpi.present, facts_of("libraries", 2, "cpu").contains(mpi.name));
}

TEST(RunFacts, VariablesThatDecideSpeed) {
  EXPECT_TRUE(is_recorded_variable("OMP_NUM_THREADS"));
  EXPECT_TRUE(is_recorded_variable("NCCL_ALGO"));
  EXPECT_FALSE(is_recorded_variable("HOME"));
}

}  // namespace
}  // namespace qstep::trainer
