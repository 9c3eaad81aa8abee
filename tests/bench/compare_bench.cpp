// How often qstep compare is right: a recipe against itself, and against itself with a slowdown
// that is planted, a number of times each; counts of the verdicts. For people, on a quiet machine:
// no test asserts what a machine does.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "trainer/base/signals.h"
#include "trainer/bench/compare_run.h"

namespace qstep::trainer {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// What compare says while it measures, kept away from the table.
class QuietErrors {
 public:
  QuietErrors() : before_(::dup(STDERR_FILENO)) {
    const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    ::dup2(nowhere, STDERR_FILENO);
    ::close(nowhere);
  }
  ~QuietErrors() {
    ::dup2(before_, STDERR_FILENO);
    ::close(before_);
  }
  QuietErrors(const QuietErrors&) = delete;
  QuietErrors& operator=(const QuietErrors&) = delete;

 private:
  int before_;
};

// Behind every step of side B the processor is kept busy for this share of A's median step so far,
// which the step then took longer.
CompareSeams planted(double share) {
  CompareSeams seams;
  seams.step_ms = [share, a = std::vector<double>()](double ms, const ComparePair&,
                                                     int64_t segment) mutable {
    if (side_of(segment) == Side::kA) {
      a.push_back(ms);
      return ms;
    }
    const double extra_ms = share * quantile(a, 0.5);
    const Clock::time_point start = Clock::now();
    while (ms_since(start) < extra_ms) {
    }
    return ms + ms_since(start);
  };
  return seams;
}

struct Options {
  int64_t tries = 20;
  double slowdown = 0.02;
  std::string recipe = "bf16";
  CompareOptions compare{.recipes = {}, .folder = ""};
  Segments segments{.blocks = 30, .warmup = 0, .steps = 1};
  std::vector<std::string> words{"model.preset=llama-1m", "train.seq_len=128",
                                 "train.global_batch=4", "train.micro_batch=4"};
};

// False where a signal stopped it.
bool run_tries(const Options& o, const std::string& folder, double share) {
  fmt::print("{}\n", share > 0 ? fmt::format("side B slowed by {:.3g} %", 100 * share)
                               : std::string("side B the same as side A"));
  std::map<std::string_view, int64_t> counts;
  int64_t n_differ = 0;
  for (int64_t i = 0; i < o.tries; ++i) {
    CompareOptions options = o.compare;
    options.recipes = {o.recipe, o.recipe};
    options.folder = fmt::format("{}/{}-{}", folder, share > 0 ? "slower" : "same", i);
    const Clock::time_point start = Clock::now();
    const CompareState state = [&] {
      const QuietErrors quiet;
      return run_compare(options, share > 0 ? planted(share) : CompareSeams{}).state;
    }();
    if (stop_signal()) return false;
    const ComparePair& pair = state.pairs.at(0);
    const AbbaResult r = judge(pair_logs(pair.segments_ms), options.abba);
    ++counts[verdict_name(r.verdict)];
    n_differ += differs(r) ? 1 : 0;
    fmt::print(
        "  {:>3}  step {:.2f} ms  gain {:.4f}  {:.4f} - {:.4f}  deviation {:.4f}  {:<12}  "
        "{:.1f} s\n",
        i + 1, side_ms(pair, Side::kA), r.gain, r.interval.low, r.interval.high, r.deviation,
        verdict_name(r.verdict), ms_since(start) * 1e-3);
    std::fflush(stdout);
  }
  fmt::print("  of {}:", o.tries);
  for (const auto& [name, n] : counts) fmt::print(" {} {}", n, name);
  fmt::print("; the interval leaves out 1 in {}\n", n_differ);
  return true;
}

int run(int argc, char** argv) {
  Options o;
  CLI::App app("How often qstep compare is right about no difference and about a planted one");
  app.add_option("config", o.words, "TOML file and section.key=value, as of qstep compare")
      ->capture_default_str();
  app.add_option("--tries", o.tries, "of each kind")->capture_default_str();
  app.add_option("--slowdown", o.slowdown, "planted on side B, a share of the step")
      ->capture_default_str();
  app.add_option("--recipe", o.recipe, "of both sides")->capture_default_str();
  app.add_option("--blocks", o.segments.blocks, "of A B B A")->capture_default_str();
  app.add_option("--steps", o.segments.steps, "of a segment that count")->capture_default_str();
  app.add_option("--warmup", o.segments.warmup, "of a segment that do not")->capture_default_str();
  app.add_option("--threshold", o.compare.abba.threshold, "of the verdict")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  o.compare.config = load_config_words(o.words).config;
  o.compare.blocks = o.segments.blocks;
  o.compare.warmup = o.segments.warmup;
  o.compare.steps = o.segments.steps;
  const auto folder =
      std::filesystem::temp_directory_path() / fmt::format("qstep_bench_compare_{}", ::getpid());
  fmt::print(
      "{} | {} blocks of four segments, {} steps each behind {} of warm-up: {} counted steps "
      "a side\n",
      fmt::join(o.words, " "), o.segments.blocks, o.segments.steps, o.segments.warmup,
      2 * o.segments.blocks * o.segments.steps);
  const bool finished = run_tries(o, folder, 0) && run_tries(o, folder, o.slowdown);
  std::filesystem::remove_all(folder);
  return static_cast<int>(finished ? ops::ExitCode::kOk : ops::ExitCode::kInterrupted);
}

}  // namespace
}  // namespace qstep::trainer

int main(int argc, char** argv) {
  try {
    return qstep::trainer::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
