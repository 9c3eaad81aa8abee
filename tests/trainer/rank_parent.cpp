// Stands between mpirun and one rank of a test's run, and notes in a folder what mpirun does not
// tell: the rank's process number in pid.<rank>, its output in out.<rank> and err.<rank>, how it
// ended in code.<rank> (128 + signal after a signal), and mpirun's number of the job in job.<rank>.
//
//   rank_parent FOLDER N PROGRAM [WORD...]
//
// mpirun, which ends all ranks when one fails, hears nothing before all N ranks have ended. N = 0
// leaves the ending to it: the program takes the place of this process, and there is no
// code.<rank>.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

namespace {

std::string g_folder, g_rank;  // NOLINT: of a program this small

std::string path_of(const std::string& kind) { return g_folder + "/" + kind + "." + g_rank; }

// Appears as a whole.
void note(const std::string& kind, const std::string& value) {
  std::ofstream(path_of(kind) + ".part") << value;
  std::filesystem::rename(path_of(kind) + ".part", path_of(kind));
}

bool all_ended(int n_ranks) {
  for (int rank = 0; rank < n_ranks; ++rank) {
    if (!std::filesystem::exists(g_folder + "/code." + std::to_string(rank))) return false;
  }
  return true;
}

void start_program(char** argv) {
  note("pid", std::to_string(::getpid()));
  const int flags = O_WRONLY | O_CREAT | O_TRUNC;
  ::dup2(::open(path_of("out").c_str(), flags, 0644), STDOUT_FILENO);
  ::dup2(::open(path_of("err").c_str(), flags, 0644), STDERR_FILENO);
  ::execv(argv[0], argv);
  ::_exit(127);
}

}  // namespace

int main(int argc, char** argv) {
  const char* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
  if (argc < 4 || rank == nullptr) return 127;
  g_folder = argv[1];
  g_rank = rank;
  const int n_ranks = std::stoi(argv[2]);
  const char* const job = std::getenv("OMPI_MCA_ess_base_jobid");
  if (job != nullptr) note("job", job);
  if (n_ranks == 0) start_program(argv + 3);

  const pid_t mpirun = ::getppid();
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // no rank outlives a test
    start_program(argv + 3);
  }
  // What mpirun sends to all of a rank's processes is for the program.
  for (const int number : {SIGINT, SIGTERM, SIGUSR1, SIGUSR2}) std::signal(number, SIG_IGN);
  int status = 0;
  ::waitpid(child, &status, 0);
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  note("code", std::to_string(code));
  while (!all_ended(n_ranks) && ::getppid() == mpirun) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return code;
}
