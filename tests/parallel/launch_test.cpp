// How a process was started, from the variables that launchers set.
#include "parallel/launch.h"

#include <gtest/gtest.h>

#include <map>

#include "ops/error.h"
#include "parallel/world.h"

namespace qstep::parallel {
namespace {

using Variables = std::map<std::string, std::string>;

Launch launch_of(const Variables& variables) {
  return find_launch([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

void expect_launch(const Launch& expected, const Launch& found) {
  EXPECT_EQ(expected.rank, found.rank);
  EXPECT_EQ(expected.size, found.size);
  EXPECT_EQ(expected.local_rank, found.local_rank);
  EXPECT_EQ(expected.local_size, found.local_size);
  EXPECT_EQ(expected.launcher, found.launcher);
  EXPECT_EQ(expected.can_begin_mpi, found.can_begin_mpi);
}

std::string error_of(const Variables& variables) {
  try {
    make_world(launch_of(variables));
  } catch (const ops::Error& error) {
    EXPECT_EQ(ops::ExitCode::kConfig, error.code());
    return error.what();
  }
  return "none";
}

// As srun sets them for task 5 of 7: nodes of 4 and 3.
const Variables kSrun = {{"SLURM_JOB_ID", "1"},  {"SLURM_NTASKS", "7"},
                         {"SLURM_PROCID", "5"},  {"SLURM_STEP_NUM_TASKS", "7"},
                         {"SLURM_LOCALID", "1"}, {"SLURM_STEP_TASKS_PER_NODE", "4,3"},
                         {"SLURM_NODEID", "1"}};

Variables with(Variables base, const Variables& more) {
  for (const auto& [name, value] : more) base[name] = value;
  return base;
}

TEST(Launch, APlainStartIsOneRank) { expect_launch({}, launch_of({})); }

TEST(Launch, OpenMpi) {
  const Variables mpirun = {{"OMPI_COMM_WORLD_RANK", "3"},
                            {"OMPI_COMM_WORLD_SIZE", "8"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                            {"PMIX_RANK", "3"}};
  const Launch expected{
      .rank = 3, .size = 8, .local_rank = 1, .local_size = 2, .launcher = "mpirun"};
  expect_launch(expected, launch_of(mpirun));
  // Inside a Slurm job mpirun starts its daemons with srun, one task per node.
  expect_launch(expected, launch_of(with(kSrun, mpirun)));
}

TEST(Launch, Pmi) {
  expect_launch({.rank = 1, .size = 4, .local_rank = 1, .local_size = 2, .launcher = "mpiexec"},
                launch_of({{"PMI_RANK", "1"},
                           {"PMI_SIZE", "4"},
                           {"MPI_LOCALRANKID", "1"},
                           {"MPI_LOCALNRANKS", "2"}}));
  expect_launch({.rank = 1, .size = 4, .local_rank = 1, .local_size = 4, .launcher = "mpiexec"},
                launch_of({{"PMI_RANK", "1"}, {"PMI_SIZE", "4"}}));
  expect_launch({.rank = 5, .size = 7, .local_rank = 1, .local_size = 3, .launcher = "srun"},
                launch_of(with(kSrun, {{"PMI_RANK", "5"}, {"PMI_SIZE", "7"}})));
}

TEST(Launch, Slurm) {
  const Launch expected{.rank = 5, .size = 7, .local_rank = 1, .local_size = 3, .launcher = "srun"};
  expect_launch(expected, launch_of(with(kSrun, {{"PMIX_RANK", "5"}})));
  Launch without_pmi = expected;
  without_pmi.can_begin_mpi = false;
  expect_launch(without_pmi, launch_of(kSrun));
}

TEST(Launch, SlurmTasksPerNode) {
  const auto local_size = [](const std::string& list, const std::string& node) {
    return launch_of(with(kSrun, {{"SLURM_STEP_TASKS_PER_NODE", list}, {"SLURM_NODEID", node}}))
        .local_size;
  };
  EXPECT_EQ(2, local_size("2(x3),3", "0"));
  EXPECT_EQ(2, local_size("2(x3),3", "2"));
  EXPECT_EQ(3, local_size("2(x3),3", "3"));
  EXPECT_EQ(7, local_size("7", "0"));
  for (const std::string list : {"2(x3", "2(x),3", "x", "2,", "2;3"}) {
    EXPECT_THROW(local_size(list, "1"), ops::Error) << list;
  }
}

// A batch script is one process: what it starts without srun is, too.
TEST(Launch, ABatchScriptOfSlurmIsOneRank) {
  expect_launch({}, launch_of({{"SLURM_JOB_ID", "1"},
                               {"SLURM_NTASKS", "7"},
                               {"SLURM_PROCID", "0"},
                               {"SLURM_LOCALID", "0"}}));
}

TEST(Launch, RefusesWhatCannotBe) {
  EXPECT_NE(std::string::npos,
            error_of({{"OMPI_COMM_WORLD_RANK", "4"}, {"OMPI_COMM_WORLD_SIZE", "4"}})
                .find("mpirun says that this is rank 4 of 4"));
  EXPECT_NE(std::string::npos,
            error_of({{"OMPI_COMM_WORLD_RANK", "four"}, {"OMPI_COMM_WORLD_SIZE", "4"}})
                .find("OMPI_COMM_WORLD_RANK is \"four\""));
  EXPECT_NE(std::string::npos, error_of({{"PMIX_RANK", "0"}}).find("PMIX_RANK"));
}

TEST(MakeWorld, OneRankIsASingleProcess) {
  EXPECT_EQ("single", make_world({})->name());
  Launch alone;
  alone.launcher = "mpirun";
  EXPECT_EQ("single", make_world(alone)->name());
}

TEST(MakeWorld, SaysWhatToDoWhenSrunGaveNoPmi) {
  EXPECT_NE(std::string::npos, error_of(kSrun).find("srun --mpi=pmix"));
}

}  // namespace
}  // namespace qstep::parallel
