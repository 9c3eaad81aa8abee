#include "parallel/launch.h"

#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "ops/error.h"

namespace qstep::parallel {

namespace {

[[noreturn]] void fail(const std::string& text) { throw ops::Error(ops::ExitCode::kConfig, text); }

[[noreturn]] void malformed(std::string_view variable, std::string_view value) {
  fail(
      fmt::format("the environment variable {} is {:?}, which this qstep does not understand: "
                  "start it with mpirun, or with srun --mpi=pmix",
                  variable, value));
}

// A number from the front of `text`, which loses it.
std::optional<int> take_number(std::string_view& text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 0) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

class Variables {
 public:
  explicit Variables(const Environment& environment) : environment_(environment) {}

  bool has(const char* name) const { return environment_(name) != nullptr; }
  std::optional<int> number(const char* name) const {
    const char* const value = environment_(name);
    if (value == nullptr) return std::nullopt;
    std::string_view text = value;
    const std::optional<int> number = take_number(text);
    if (!number || !text.empty()) malformed(name, value);
    return number;
  }
  std::string_view text(const char* name) const {
    const char* const value = environment_(name);
    return value == nullptr ? "" : value;
  }

 private:
  const Environment& environment_;
};

// Tasks of node `node` in Slurm's list of them: "4(x2),3" is 4, 4, 3.
int slurm_tasks(std::string_view list, int node) {
  const std::string_view whole = list;
  int first = 0;  // node
  while (!list.empty()) {
    const std::optional<int> tasks = take_number(list);
    std::optional<int> times = 1;
    if (list.starts_with("(x")) {
      list.remove_prefix(2);
      times = take_number(list);
      if (!list.starts_with(")")) break;
      list.remove_prefix(1);
    }
    if (!tasks || !times) break;
    first += *times;
    if (node < first) return *tasks;
    if (!list.starts_with(",")) break;
    list.remove_prefix(1);
  }
  malformed("SLURM_STEP_TASKS_PER_NODE", whole);
}

// One node, unless somebody says more.
void assume_one_node(Launch& launch) {
  launch.local_rank = launch.rank;
  launch.local_size = launch.size;
}

void read_slurm_node(const Variables& variables, Launch& launch) {
  const std::string_view tasks = variables.text("SLURM_STEP_TASKS_PER_NODE");
  const std::optional<int> local_rank = variables.number("SLURM_LOCALID");
  if (tasks.empty() || !local_rank) return assume_one_node(launch);
  launch.local_rank = *local_rank;
  launch.local_size = slurm_tasks(tasks, variables.number("SLURM_NODEID").value_or(0));
}

std::optional<Launch> from_open_mpi(const Variables& variables) {
  const std::optional<int> rank = variables.number("OMPI_COMM_WORLD_RANK");
  const std::optional<int> size = variables.number("OMPI_COMM_WORLD_SIZE");
  if (!rank || !size) return std::nullopt;
  Launch launch{.rank = *rank, .size = *size, .launcher = "mpirun"};
  assume_one_node(launch);
  launch.local_rank = variables.number("OMPI_COMM_WORLD_LOCAL_RANK").value_or(launch.local_rank);
  launch.local_size = variables.number("OMPI_COMM_WORLD_LOCAL_SIZE").value_or(launch.local_size);
  return launch;
}

std::optional<Launch> from_pmi(const Variables& variables) {
  const std::optional<int> rank = variables.number("PMI_RANK");
  const std::optional<int> size = variables.number("PMI_SIZE");
  if (!rank || !size) return std::nullopt;
  const bool slurm = variables.has("SLURM_STEP_NUM_TASKS");
  Launch launch{.rank = *rank, .size = *size, .launcher = slurm ? "srun" : "mpiexec"};
  if (slurm) {
    read_slurm_node(variables, launch);
    return launch;
  }
  assume_one_node(launch);
  launch.local_rank = variables.number("MPI_LOCALRANKID").value_or(launch.local_rank);
  launch.local_size = variables.number("MPI_LOCALNRANKS").value_or(launch.local_size);
  return launch;
}

std::optional<Launch> from_slurm(const Variables& variables) {
  const std::optional<int> rank = variables.number("SLURM_PROCID");
  const std::optional<int> size = variables.number("SLURM_STEP_NUM_TASKS");
  if (!rank || !size) return std::nullopt;
  Launch launch{.rank = *rank, .size = *size, .launcher = "srun"};
  launch.can_begin_mpi = variables.has("PMIX_RANK");
  read_slurm_node(variables, launch);
  return launch;
}

}  // namespace

Launch find_launch(const Environment& environment) {
  const Variables variables(environment);
  std::optional<Launch> launch = from_open_mpi(variables);
  if (!launch) launch = from_pmi(variables);
  if (!launch) launch = from_slurm(variables);
  if (!launch) {
    if (variables.has("PMIX_RANK")) malformed("PMIX_RANK", variables.text("PMIX_RANK"));
    return {};
  }
  if (launch->rank >= launch->size || launch->local_rank >= launch->local_size ||
      launch->local_size > launch->size) {
    fail(fmt::format(
        "{} says that this is rank {} of {}, and rank {} of {} on its node, which "
        "cannot be: look for variables of another launcher in the environment",
        launch->launcher, launch->rank, launch->size, launch->local_rank, launch->local_size));
  }
  return *launch;
}

Launch find_launch() {
  return find_launch([](const char* name) { return std::getenv(name); });
}

}  // namespace qstep::parallel
