// Communication, ranks and memory of a run.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "trainer/report/report_sections.h"
#include "trainer/report/report_windows.h"

namespace qstep::trainer::report {

namespace {

constexpr const char* kNoRankRows =
    "no per-rank rows: timing.level was off, or the run is of an older qstep";

// The share of communication that computation hid; none of it where more was exposed than ran, as
// waiting for a late rank may take longer than what then is exchanged.
double overlap(double total_ms, double exposed_ms) {
  return total_ms > 0 ? std::clamp(1 - exposed_ms / total_ms, 0.0, 1.0) : kMissing;
}

// From the rows of the steps: the first rank, all collectives together.
Json comm_of_steps(const Run& run, const StepChoice& choice) {
  double exposed = 0, busy = 0, bytes = 0, step_ms = 0;
  const auto n = static_cast<double>(choice.measured.size());
  for (const size_t i : choice.measured) {
    const Step& step = run.steps[i];
    const auto comm = step.phases_ms.find("comm");
    const double waited = comm == step.phases_ms.end() ? 0 : comm->second;
    exposed += (std::isnan(step.comm_exposed_ms) ? waited : step.comm_exposed_ms) / n;
    busy += step.comm_busy_ms / n;
    bytes += static_cast<double>(step.comm_bytes) / n;
    step_ms += step.step_ms / n;
  }
  return {{"n_steps", choice.measured.size()},
          {"bytes", number(bytes)},
          {"total_ms", number(busy)},
          {"exposed_ms", number(exposed)},
          {"overlap", number(overlap(busy, exposed))},
          {"exposed_share", number(exposed / step_ms)}};
}

// Ranks that exchange with each other: the same group name means other ranks elsewhere in the mesh.
struct GroupOf {
  std::map<int64_t, RankStart> starts;
  explicit GroupOf(const Run& run) {
    for (const RankStart& start : run.rank_starts) starts[start.rank] = start;
  }
  int64_t operator()(const CommSum& row) const {
    const auto start = starts.find(row.rank);
    if (start == starts.end()) return 0;
    return row.group == "data"     ? start->second.tensor_rank
           : row.group == "tensor" ? start->second.data_rank
                                   : 0;
  }
};

// Mean over ranks and steps of how much longer a rank was in its collectives than the last one to
// arrive, which measures the bare transfer.
std::map<std::pair<std::string, std::string>, double> skew_sums(const Run& run,
                                                                const WindowChoice& windows) {
  using Key = std::tuple<std::string, std::string, int64_t, int64_t>;  // group, op, which, window
  const GroupOf group_of(run);
  std::map<Key, std::vector<double>> totals;
  for (const CommSum& row : run.comms) {
    if (!windows.contains(row)) continue;
    totals[{row.group, row.op, group_of(row), row.step}].push_back(row.total_ms);
  }
  std::map<std::pair<std::string, std::string>, double> sums;
  for (const auto& [key, ranks] : totals) {
    const double least = *std::min_element(ranks.begin(), ranks.end());
    for (const double ms : ranks) sums[{std::get<0>(key), std::get<1>(key)}] += ms - least;
  }
  return sums;
}

// By group and kind, per step of a rank.
Json collectives(const Run& run, const StepChoice& choice) {
  const WindowChoice windows(run.comms, choice);
  struct Sum {
    double calls = 0, bytes = 0, total_ms = 0, exposed_ms = 0;
  };
  std::map<std::pair<std::string, std::string>, Sum> sums;
  for (const CommSum& row : run.comms) {
    if (!windows.contains(row)) continue;
    Sum& sum = sums[{row.group, row.op}];
    sum.calls += static_cast<double>(row.calls);
    sum.bytes += static_cast<double>(row.bytes);
    sum.total_ms += row.total_ms;
    sum.exposed_ms += row.exposed_ms;
  }
  const auto skews = skew_sums(run, windows);
  const double n = windows.rank_steps();
  Json rows = Json::array();
  for (const auto& [key, sum] : sums) {
    rows.push_back({{"group", key.first},
                    {"op", key.second},
                    {"calls", sum.calls / n},
                    {"bytes", sum.bytes / n},
                    {"total_ms", sum.total_ms / n},
                    {"exposed_ms", sum.exposed_ms / n},
                    {"overlap", number(overlap(sum.total_ms, sum.exposed_ms))},
                    {"skew_ms", skews.at(key) / n},
                    {"bytes_per_s", number(sum.bytes / (sum.total_ms * 1e-3))}});
  }
  std::stable_sort(rows.begin(), rows.end(), [](const Json& a, const Json& b) {
    return a["exposed_ms"].get<double>() > b["exposed_ms"].get<double>();
  });
  return rows;
}

// Phases in which a rank waits: they say how slow the others are.
bool waits(const std::string& phase) {
  static const std::set<std::string> kWaiting = {"grad_reduce", "param_gather", "tp_comm", "comm"};
  return kWaiting.contains(phase);
}

// Exposed communication twice, per step of a rank: what of the collectives lies outside of the
// computation, and what the step waited. A difference of more than 2 % of a step, on any rank, is
// an error of the measurement.
Json exposed_twice(const Run& run, const StepChoice& choice) {
  const WindowChoice windows(run.comms, choice), phase_windows(run.phases, choice);
  struct Sums {
    double intervals_ms = 0, waits_ms = 0;
  };
  std::map<int64_t, Sums> ranks;
  for (const CommSum& row : run.comms) {
    if (windows.contains(row)) ranks[row.rank].intervals_ms += row.exposed_ms / windows.steps();
  }
  for (const PhaseSum& row : run.phases) {
    if (!phase_windows.contains(row) || !waits(row.phase)) continue;
    ranks[row.rank].waits_ms += row.ms / phase_windows.steps();
  }
  double intervals = 0, waited = 0, worst = 0, step_ms = 0;
  for (const auto& [rank, sums] : ranks) {
    intervals += sums.intervals_ms / static_cast<double>(ranks.size());
    waited += sums.waits_ms / static_cast<double>(ranks.size());
    worst = std::max(worst, std::abs(sums.intervals_ms - sums.waits_ms));
  }
  for (const double ms : step_times(run, choice.measured)) {
    step_ms += ms / static_cast<double>(choice.measured.size());
  }
  return {{"available", true},
          {"intervals_ms", intervals},
          {"waits_ms", waited},
          {"worst_difference_share", number(worst / step_ms)}};
}

// ---- ranks -------------------------------------------------------------------------------------

struct RankTimes {
  TimesMs phases;                     // ms per step
  std::map<int64_t, double> busy_ms;  // by window, waiting left out
  double busy() const {
    double sum = 0;
    for (const auto& [phase, ms] : phases) sum += waits(phase) ? 0 : ms;
    return sum;
  }
};

std::map<int64_t, RankTimes> times_by_rank(const Run& run, const StepChoice& choice) {
  const WindowChoice windows(run.phases, choice);
  std::map<int64_t, RankTimes> ranks;
  for (const PhaseSum& row : run.phases) {
    if (!windows.contains(row)) continue;
    RankTimes& rank = ranks[row.rank];
    rank.phases[row.phase] += row.ms / windows.steps();
    if (!waits(row.phase)) rank.busy_ms[row.step] += row.ms;
  }
  return ranks;
}

// In how many windows each rank was the slowest.
std::map<int64_t, int64_t> slowest_counts(const std::map<int64_t, RankTimes>& ranks) {
  std::map<int64_t, std::pair<double, int64_t>> slowest;  // by window
  for (const auto& [rank, times] : ranks) {
    for (const auto& [window, ms] : times.busy_ms) {
      auto& entry = slowest.try_emplace(window, -1.0, rank).first->second;
      if (ms > entry.first) entry = {ms, rank};
    }
  }
  std::map<int64_t, int64_t> counts;
  for (const auto& [window, entry] : slowest) ++counts[entry.second];
  return counts;
}

// Smallest, middle and largest of each phase, with the ranks.
Json spread_by_phase(const std::map<int64_t, RankTimes>& ranks) {
  std::map<std::string, std::vector<std::pair<double, int64_t>>> phases;
  for (const auto& [rank, times] : ranks) {
    for (const auto& [phase, ms] : times.phases) phases[phase].emplace_back(ms, rank);
  }
  Json rows = Json::array();
  for (auto& [phase, values] : phases) {
    std::sort(values.begin(), values.end());
    std::vector<double> sorted;
    for (const auto& [ms, rank] : values) sorted.push_back(ms);
    rows.push_back({{"phase", phase},
                    {"min_ms", sorted.front()},
                    {"min_rank", values.front().second},
                    {"median_ms", quantile(sorted, 0.5)},
                    {"max_ms", sorted.back()},
                    {"max_rank", values.back().second}});
  }
  return rows;
}

}  // namespace

Json comm_section(const Run& run, const StepChoice& choice) {
  if (run.last_start().ranks <= 1) return missing("one rank has nobody to talk to");
  if (choice.measured.empty()) return missing("no step was measured");
  Json json = {{"available", true}, {"first_rank", comm_of_steps(run, choice)}};
  json["collectives"] = run.comms.empty()
                            ? missing(kNoRankRows)
                            : Json{{"available", true}, {"rows", collectives(run, choice)}};
  json["exposed_twice"] =
      run.comms.empty() || run.phases.empty() ? missing(kNoRankRows) : exposed_twice(run, choice);
  json["baseline"] = missing("no run without computation was measured beside it");
  return json;
}

Json ranks_section(const Run& run, const StepChoice& choice) {
  if (run.last_start().ranks <= 1) return missing("one rank has nobody to be compared with");
  if (run.phases.empty()) return missing(kNoRankRows);
  const std::map<int64_t, RankTimes> ranks = times_by_rank(run, choice);
  const std::map<int64_t, int64_t> slowest = slowest_counts(ranks);
  std::map<int64_t, RankStart> starts;
  for (const RankStart& start : run.rank_starts) starts[start.rank] = start;
  double best = std::numeric_limits<double>::infinity();
  for (const auto& [rank, times] : ranks) best = std::min(best, times.busy());

  // A straggler is slower than this in more than half of the windows.
  constexpr double kStragglerScore = 0.97;
  Json json = {{"available", true}, {"straggler", nullptr}, {"ranks", Json::array()}};
  for (const auto& [rank, times] : ranks) {
    const auto count = slowest.find(rank);
    const int64_t n_slowest = count == slowest.end() ? 0 : count->second;
    const auto n_windows = static_cast<int64_t>(times.busy_ms.size());
    const double score = times.busy() > 0 ? best / times.busy() : 1.0;
    Json row = {{"rank", rank},
                {"host", starts.contains(rank) ? Json(starts[rank].host) : Json(nullptr)},
                {"busy_ms", times.busy()},
                {"score", score},
                {"slowest_windows", n_slowest},
                {"windows", n_windows},
                {"phases_ms", times.phases}};
    const bool slow = score < kStragglerScore && 2 * n_slowest > n_windows;
    if (slow) json["straggler"] = rank;
    json["ranks"].push_back(std::move(row));
  }
  json["phases"] = spread_by_phase(ranks);
  return json;
}

Json memory_section(const Run& run) {
  int64_t peak = 0;
  for (const Step& step : run.steps) peak = std::max(peak, step.peak_rss_bytes);
  Json json = {{"available", true}, {"peak_rss_bytes", peak > 0 ? Json(peak) : Json(nullptr)}};
  std::map<int64_t, int64_t> last_start;  // by rank: later starts allocate anew
  for (const RankMemory& row : run.memory) {
    last_start[row.rank] = std::max(last_start[row.rank], row.step);
  }
  std::map<std::string, std::vector<int64_t>> owners;
  std::map<int64_t, int64_t> sums;
  for (const RankMemory& row : run.memory) {
    if (row.step != last_start[row.rank]) continue;
    owners[row.owner].push_back(row.bytes);
    sums[row.rank] += row.bytes;
  }
  if (owners.empty()) {
    json["by_owner"] = missing(kNoRankRows);
    return json;
  }
  Json rows = Json::array();
  for (const auto& [owner, bytes] : owners) {
    const auto [least, most] = std::minmax_element(bytes.begin(), bytes.end());
    const int64_t sum = std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
    rows.push_back({{"owner", owner},
                    {"mean_bytes", sum / static_cast<int64_t>(sums.size())},
                    {"min_bytes", *least},
                    {"max_bytes", *most}});
  }
  std::stable_sort(rows.begin(), rows.end(), [](const Json& a, const Json& b) {
    return a["mean_bytes"].get<int64_t>() > b["mean_bytes"].get<int64_t>();
  });
  int64_t most = 0;
  for (const auto& [rank, sum] : sums) most = std::max(most, sum);
  json["by_owner"] = {{"available", true},
                      {"n_ranks", sums.size()},
                      {"largest_rank_bytes", most},
                      {"owners", rows}};
  return json;
}

}  // namespace qstep::trainer::report
