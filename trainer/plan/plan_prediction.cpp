#include "trainer/plan/plan_prediction.h"

#include <fmt/format.h>

#include "trainer/base/format.h"
#include "trainer/step/machine_memory.h"

namespace qstep::trainer {

namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kSweepRowsShown = 12;

std::string runs_text(const ProductTime& p) {
  return p.runs.emulated ? fmt::format("{} in {}", name(p.runs.asked), name(p.runs.format))
                         : std::string(name(p.runs.format));
}

void print_phases(const StepTime& t) {
  fmt::print("\n{:<16}{:>11}{:>9}{:>14}{:>14}   {}\n", "phase", "ms", "share", "flops", "bytes",
             "waits for");
  for (const PhaseTime& p : t.phases) {
    fmt::print("{:<16}{:>11.3f}{:>7.1f} %{:>14}{:>14}   {}\n", p.phase, 1e3 * p.seconds(),
               100 * p.seconds() / t.seconds(), p.flops > 0 ? si_text(p.flops, "FLOP") : "-",
               si_text(p.bytes, "B"), name(p.bound()));
  }
  fmt::print("{:<16}{:>11.3f}\n", "step", 1e3 * t.seconds());
}

// Of one call: both operands with their scales, and the output.
double bytes_of(const ProductTime& p, const StepTime& t) {
  return product_bytes(p.work, t.work.element_bytes, p.runs.emulated);
}

// The columns between k and calls are of one call.
void print_products(const StepTime& t, const MachineModel& machine) {
  fmt::print("\n{:<16}{:>8}{:>9}{:>9}{:>14}{:>11}{:>8}{:>10}{:>15}{:>9}   {}\n", "product", "m",
             "n", "k", "flops", "bytes", "calls", "ms", "rate", "of peak", "runs as");
  for (const ProductTime& p : t.products) {
    const double rate = p.work.count * p.work.flops() / p.seconds;
    fmt::print("{:<16}{:>8}{:>9}{:>9}{:>14}{:>11}{:>8.0f}{:>10.2f}{:>15}{:>7.1f} %   {}\n",
               fmt::format("{} {}", p.work.op, p.work.pass), p.work.m, p.work.n, p.work.k,
               si_text(p.work.flops(), "FLOP"), si_text(bytes_of(p, t), "B"), p.work.count,
               1e3 * p.seconds, si_text(rate, "FLOP/s"),
               100 * rate / machine.product(p.runs.format).peak, runs_text(p));
  }
}

// Of an element of the tensor, both orientations together.
double read_per_element(const QuantizeTime& q) {
  return q.read_bytes / (q.work.count * q.work.elements());
}
double written_per_element(const QuantizeTime& q) {
  return q.written_bytes / (q.work.count * q.work.elements());
}

void print_quantizations(const StepTime& t) {
  if (t.quantizations.empty()) return;
  fmt::print("\n{:<16}{:>8}{:>8}{:>12}{:>12}{:>10}{:>10}{:>10}   {}\n", "quantized", "calls",
             "reads", "read", "written", "B/el in", "B/el out", "ms", "as");
  for (const QuantizeTime& q : t.quantizations) {
    const auto& row = q.work.rowwise;
    const auto& column = q.work.columnwise;
    fmt::print("{:<16}{:>8.0f}{:>8}{:>12}{:>12}{:>10.3f}{:>10.3f}{:>10.2f}   {}{}\n",
               fmt::format("{} {}", q.work.op, q.work.tensor), q.work.count, q.work.reads,
               si_text(q.read_bytes, "B"), si_text(q.written_bytes, "B"), read_per_element(q),
               written_per_element(q), 1e3 * q.seconds, precision::describe(row),
               row == column ? "" : fmt::format("; {}", precision::describe(column)));
  }
}

void print_comm(const StepTime& t) {
  if (t.comm.empty()) return;
  fmt::print("\n{:<16}{:<16}{:>8}{:>8}{:>12}{:>11}{:>13}   {}\n", "communication", "", "group",
             "calls", "sent", "total ms", "exposed ms", "over the");
  for (const CommTime& c : t.comm) {
    fmt::print("{:<16}{:<16}{:>8}{:>8.0f}{:>12}{:>11.3f}{:>13.3f}   {}\n", c.phase, c.op, c.group,
               c.calls, si_text(c.bytes, "B"), 1e3 * c.total_s, 1e3 * c.exposed_s, name(c.bound));
  }
}

void print_sweep(const std::vector<SweepRow>& rows) {
  if (rows.empty()) return;
  if (!rows.front().fits) fmt::print("\nno mesh and micro-batch fits the memory of a rank\n");
  fmt::print("\n{:>8}{:>8}{:>13}{:>12}{:>10}{:>12}{:>14}{:>8}{:>8}\n", "tensor", "data",
             "micro_batch", "memory", "", "step ms", "tokens/s/rank", "MFU", "SOL");
  for (size_t i = 0; i < std::min(rows.size(), kSweepRowsShown); ++i) {
    const SweepRow& r = rows[i];
    fmt::print("{:>8}{:>8}{:>13}{:>12}{:>10}{:>12.1f}{:>14.0f}{:>6.1f} %{:>6.1f} %\n", r.tensor,
               r.data, r.micro_batch, bytes_text(r.memory_bytes), r.fits ? "fits" : "too much",
               1e3 * r.time.seconds(), r.time.tokens_per_s() / r.time.work.ranks,
               100 * r.time.used().mfu_bf16, 100 * r.time.used().sol);
  }
  if (rows.size() > kSweepRowsShown) {
    fmt::print("  ... {} more with --json\n", rows.size() - kSweepRowsShown);
  }
}

Json step_json(const StepTime& t, const MachineModel& machine) {
  const Utilisation used = t.used();
  Json json = {{"step_ms", 1e3 * t.seconds()},
               {"tokens_per_s", t.tokens_per_s()},
               {"tokens_per_s_per_rank", t.tokens_per_s() / t.work.ranks},
               {"causal_flops", t.work.causal_flops},
               {"full_flops", t.work.full_flops},
               {"causal_flops_per_s", used.causal_flops_per_s},
               {"mfu_bf16", used.mfu_bf16},
               {"hfu", used.hfu},
               {"sol", used.sol},
               {"sol_mem", used.sol_mem},
               {"emulated", t.emulated},
               {"breakdown_ms", Json::object()},
               {"phases", Json::array()},
               {"products", Json::array()},
               {"quantized", Json::array()},
               {"communication", Json::array()}};
  for (const PhaseTime& p : t.phases) {
    json["breakdown_ms"][p.phase] = 1e3 * p.seconds();
    json["phases"].push_back({{"phase", p.phase},
                              {"ms", 1e3 * p.seconds()},
                              {"flops", p.flops},
                              {"bytes", p.bytes},
                              {"waits_for", name(p.bound())}});
  }
  for (const ProductTime& p : t.products) {
    json["products"].push_back({{"op", p.work.op},
                                {"pass", p.work.pass},
                                {"m", p.work.m},
                                {"n", p.work.n},
                                {"k", p.work.k},
                                {"format", name(p.runs.asked)},
                                {"runs_as", name(p.runs.format)},
                                {"emulated", p.runs.emulated},
                                {"flops", p.work.flops()},
                                {"bytes", bytes_of(p, t)},
                                {"calls", p.work.count},
                                {"ms", 1e3 * p.seconds},
                                {"flops_per_s", p.work.count * p.work.flops() / p.seconds},
                                {"peak_flops_per_s", machine.product(p.runs.format).peak},
                                {"waits_for", name(p.bound)}});
  }
  for (const QuantizeTime& q : t.quantizations) {
    json["quantized"].push_back({{"op", q.work.op},
                                 {"tensor", q.work.tensor},
                                 {"rowwise", precision::describe(q.work.rowwise)},
                                 {"columnwise", precision::describe(q.work.columnwise)},
                                 {"calls", q.work.count},
                                 {"reads", q.work.reads},
                                 {"read_bytes", q.read_bytes},
                                 {"written_bytes", q.written_bytes},
                                 {"read_per_element", read_per_element(q)},
                                 {"written_per_element", written_per_element(q)},
                                 {"ms", 1e3 * q.seconds}});
  }
  for (const CommTime& c : t.comm) {
    json["communication"].push_back({{"phase", c.phase},
                                     {"group", c.group},
                                     {"op", c.op},
                                     {"calls", c.calls},
                                     {"bytes", c.bytes},
                                     {"total_ms", 1e3 * c.total_s},
                                     {"exposed_ms", 1e3 * c.exposed_s},
                                     {"over", name(c.bound)}});
  }
  return json;
}

Json machine_json(const MachineModel& m) {
  const auto rate = [](const Rate& r) {
    return Json{{"peak", r.peak}, {"share", r.share}, {"source", r.source}};
  };
  Json json = {{"name", m.name}, {"title", m.title}, {"memory_bytes", m.memory_bytes}};
  for (size_t i = 0; i < m.products.size(); ++i) {
    if (m.products[i].peak > 0) json["products"][kProductFormatNames[i]] = rate(m.products[i]);
  }
  json["attention"] = {{"forward", m.attention_forward},
                       {"backward", m.attention_backward},
                       {"source", m.attention_source}};
  json["memory"] = rate(m.memory);
  if (m.link.peak > 0) json["link"] = rate(m.link);
  if (m.network.peak > 0) json["network"] = rate(m.network);
  json["launch"] = {{"seconds", m.launch_s}, {"source", m.launch_source}};
  return json;
}

}  // namespace

Prediction predict(const Config& config, const MachineModel& machine, int n_ranks, bool sweep) {
  Config bf16 = config;
  set_recipe(bf16, std::string(kBf16Recipe));
  Prediction prediction{.step = predict_step(config, machine, n_ranks),
                        .bf16 = predict_step(bf16, machine, n_ranks),
                        .memory_bytes = total_bytes(machine_memory(config, machine, n_ranks)),
                        .sweep = {}};
  if (sweep) prediction.sweep = sweep_meshes(config, machine, n_ranks);
  return prediction;
}

void print_prediction(const Prediction& prediction, const Config& config,
                      const MachineModel& machine) {
  const StepTime& t = prediction.step;
  const Utilisation used = t.used();
  const double bf16_peak = machine.product(ProductFormat::kBf16).peak;
  fmt::print("\npredicted step on {} ({}): {} rank{}, tensor {} x data {}\n", machine.name,
             machine.title, t.work.ranks, t.work.ranks == 1 ? "" : "s", t.work.tensor, t.work.data);
  fmt::print("  {:<12}{} of {} a rank: {}\n", "memory", bytes_text(prediction.memory_bytes),
             bytes_text(machine.memory_bytes),
             prediction.memory_bytes <= machine.memory_bytes ? "fits" : "DOES NOT FIT");
  fmt::print("  {:<12}{:.1f} ms, {} tokens/s, {:.0f} a rank\n", "step", 1e3 * t.seconds(),
             with_commas(std::llround(t.tokens_per_s())), t.tokens_per_s() / t.work.ranks);
  fmt::print("  {:<12}{} a rank (causal; {} full)\n", "rate",
             si_text(used.causal_flops_per_s, "FLOP/s"), si_text(used.full_flops_per_s, "FLOP/s"));
  fmt::print("  {:<12}{:.1f} % of {} BF16 (causal); HFU {:.1f} %\n", "MFU", 100 * used.mfu_bf16,
             si_text(bf16_peak, "FLOP/s"), 100 * used.hfu);
  fmt::print("  {:<12}{:.1f} %; with what must pass through memory {:.1f} %\n", "SOL",
             100 * used.sol, 100 * used.sol_mem);
  fmt::print("  {:<12}{:.2f}x of {} over bf16; no more than {:.2f}x by its products\n", "gain",
             prediction.gain(), config.precision.recipe, prediction.step.least.largest_gain());
  if (t.emulated) {
    fmt::print("  {:<12}{} has no products of some of the recipe's formats: decoded, in {}\n",
               "emulated", machine.name, name(t.work.compute));
  }
  print_phases(t);
  print_products(t, machine);
  print_quantizations(t);
  print_comm(t);
  print_sweep(prediction.sweep);
}

Json to_json(const Prediction& prediction, const MachineModel& machine) {
  Json json = {{"machine", machine_json(machine)},
               {"ranks", prediction.step.work.ranks},
               {"tensor", prediction.step.work.tensor},
               {"data", prediction.step.work.data},
               {"memory_bytes", prediction.memory_bytes},
               {"fits", prediction.memory_bytes <= machine.memory_bytes},
               {"gain_over_bf16", prediction.gain()},
               {"largest_gain_over_bf16", prediction.step.least.largest_gain()}};
  json.update(step_json(prediction.step, machine));
  for (const SweepRow& r : prediction.sweep) {
    json["sweep"].push_back({{"tensor", r.tensor},
                             {"data", r.data},
                             {"micro_batch", r.micro_batch},
                             {"memory_bytes", r.memory_bytes},
                             {"fits", r.fits},
                             {"step_ms", 1e3 * r.time.seconds()},
                             {"tokens_per_s", r.time.tokens_per_s()},
                             {"mfu_bf16", r.time.used().mfu_bf16},
                             {"sol", r.time.used().sol}});
  }
  return json;
}

}  // namespace qstep::trainer
