#include "trainer/plan/step_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/error.h"
#include "trainer/plan/step_comm.h"

namespace qstep::trainer {

using precision::QuantFormat;
using precision::QuantSpec;
using precision::Rounding;

namespace {

// Shares of the memory's peak that quantizers attain, both orientations, counting what is read and
// written. NVFP4 on B300: 6.4 TB/s of 8 to nearest, 4.5 stochastic (TransformerEngine#2412); MXFP8
// of 8192^2 BF16 values on B200: 52.3 us, 5.2 TB/s (ROCm/TransformerEngine#598). Assumed to hold on
// other machines. FP8 with FP32 scales is a plain pass: the machine's own share.
constexpr double kNvfp4Nearest = 6.4 / 8, kNvfp4Stochastic = 4.5 / 8, kMxfp8 = 5.2 / 8;

// Attention's rate against that at T = 8192: FlashAttention-3 forward at 512, 1024, ..., 16384, D =
// 128 (pytorch/benchmark#2391).
constexpr std::array<double, 6> kRateByLength{430.3 / 614.2, 517.1 / 614.2, 565.5 / 614.2,
                                              590.2 / 614.2, 1.0,           620.7 / 614.2};
constexpr double kShortestLength = 512;
// D = 64 against 128: 1193 and 1646 TFLOP/s, FlashAttention-4 (flash-attention#2605).
constexpr double kRateAtHalfHead = 1193.0 / 1646;

// Linear in log2 T between the measured lengths; the ends hold beyond them.
double attention_factor(int64_t seq_len, int64_t head_dim) {
  const double last = static_cast<double>(kRateByLength.size() - 1);
  const double at =
      std::clamp(std::log2(static_cast<double>(seq_len) / kShortestLength), 0.0, last);
  const auto below = static_cast<size_t>(std::min(std::floor(at), last - 1));
  const double part = at - static_cast<double>(below);
  const double rate = kRateByLength[below] * (1 - part) + kRateByLength[below + 1] * part;
  return rate * (head_dim < 128 ? kRateAtHalfHead : 1);
}

double quantizer_share(const QuantSpec& spec, double plain) {
  const bool random = spec.rounding != Rounding::kNearest;
  switch (spec.format) {
    case QuantFormat::kNvfp4:
    case QuantFormat::kMxfp4:
      return random ? kNvfp4Stochastic : kNvfp4Nearest;
    case QuantFormat::kMxfp8E4m3:
    case QuantFormat::kMxfp8E5m2:
      return kMxfp8;
    default:
      return plain;
  }
}

class Predictor {
 public:
  Predictor(const Config& config, const MachineModel& machine, int n_ranks)
      : config_(config), machine_(machine) {
    t_.work = step_work(config, n_ranks);
    if (!machine.has(t_.work.compute)) {
      throw ops::Error(ops::ExitCode::kConfig,
                       fmt::format("machine {} has no {} products, which recipe {} computes in",
                                   machine.name, name(t_.work.compute), config.precision.recipe));
    }
  }

  StepTime predict() {
    for (const ProductWork& work : t_.work.products) add_product(work);
    for (const QuantizeWork& work : t_.work.quantizations) add_quantize(work);
    for (const MemoryWork& work : t_.work.passes) add_pass(work);
    add_attention();
    add_comm();
    t_.least = least_time(t_.work, machine_);
    sort_phases();
    return std::move(t_);
  }

 private:
  PhaseTime& phase(std::string_view name) {
    for (PhaseTime& p : t_.phases) {
      if (p.phase == name) return p;
    }
    t_.phases.push_back({.phase = std::string(name)});
    return t_.phases.back();
  }

  // Operations that do `flops` and move `bytes` together. Returns their seconds.
  double add(std::string_view phase_name, StepPart part, double flops, double flops_per_s,
             double bytes, double bytes_per_s, double launches) {
    const double matrix = flops > 0 ? flops / flops_per_s : 0, memory = bytes / bytes_per_s;
    const Bound bound = matrix >= memory ? Bound::kMatrix : Bound::kMemory;
    return add_seconds(phase_name, part, flops, bytes, bound, std::max(matrix, memory),
                       launches * machine_.launch_s);
  }

  // The same where the seconds are known, those of the launches apart.
  double add_seconds(std::string_view phase_name, StepPart part, double flops, double bytes,
                     Bound bound, double work_s, double launch_s) {
    PhaseTime& p = phase(phase_name);
    p.flops += flops;
    p.bytes += bytes;
    p.seconds_by[static_cast<size_t>(bound)] += work_s;
    p.seconds_by[static_cast<size_t>(Bound::kLaunch)] += launch_s;
    const double seconds = work_s + launch_s;
    if (part == StepPart::kUpdate) {
      windows_.update += seconds;
    } else if (part != StepPart::kHead) {
      (part == StepPart::kForward ? windows_.forward : windows_.backward) +=
          seconds / t_.work.micros;
    }
    return seconds;
  }

  void add_product(const ProductWork& work) {
    ProductTime time{work, runs_as(machine_, work.left, work.right, t_.work.compute)};
    const Rate& rate = machine_.product(time.runs.format);
    const double e = t_.work.element_bytes;
    const double bytes = product_bytes(work, e, time.runs.emulated);
    const std::string gemm = fmt::format("gemm_{}", name(time.runs.format));
    const std::string_view phase_name = work.op == "head" ? "head_loss" : std::string_view(gemm);
    if (const TypeCosts* costs = measured()) {
      add_measured_product(time, phase_name, *costs, bytes);
    } else {
      time.seconds = add(phase_name, work.part, work.count * work.flops(), rate.attained(),
                         work.count * bytes, machine_.memory.attained(), work.count);
      time.bound = work.flops() / rate.attained() >= bytes / machine_.memory.attained()
                       ? Bound::kMatrix
                       : Bound::kMemory;
    }
    if (work.pass == "wgrad" && (work.op == "qkv" || work.op == "up")) {
      windows_.wgrad_column += time.seconds / t_.work.micros;
    }
    t_.emulated = t_.emulated || time.runs.emulated;
    t_.products.push_back(std::move(time));
  }

  // Of a processor whose operations were measured; null otherwise.
  const TypeCosts* measured() const {
    if (!machine_.costs) return nullptr;
    const bool fp32 = t_.work.compute == ProductFormat::kFp32;
    return &machine_.costs->of(fp32 ? ops::Dtype::kF32 : ops::Dtype::kBf16);
  }

  void add_measured_product(ProductTime& time, std::string_view phase_name, const TypeCosts& costs,
                            double bytes) {
    const ProductWork& work = time.work;
    const auto* gemm = std::find_if(precision::kGemms.begin(), precision::kGemms.end(),
                                    [&](const auto& g) { return g.name == work.pass; });
    const ProductCost& cost = costs.products[static_cast<size_t>(gemm - precision::kGemms.begin())];
    const double seconds = cost.seconds(work.flops(), bytes) - cost.launch_s;
    time.bound = 2 * bytes * cost.s_per_byte > seconds ? Bound::kMemory : Bound::kMatrix;
    time.seconds = add_seconds(phase_name, work.part, work.count * work.flops(), work.count * bytes,
                               time.bound, work.count * seconds, work.count * cost.launch_s);
  }

  // Elements at what they cost where a cache holds them, or bytes from memory where one call's are
  // more than the cache.
  void add_pass(const MemoryWork& work) {
    const TypeCosts* costs = measured();
    if (costs == nullptr) {
      add(work.phase, work.part, 0, 0, work.bytes, machine_.memory.attained(), work.launches);
      return;
    }
    const double loops = work.elements * costs->element(work.op);
    const bool cached = work.bytes / work.launches <= machine_.costs->cache_bytes;
    const double memory = cached ? 0 : work.bytes / machine_.costs->memory_bytes_per_s;
    add_seconds(work.phase, work.part, 0, work.bytes,
                loops >= memory ? Bound::kLoops : Bound::kMemory, std::max(loops, memory),
                work.launches * machine_.launch_s);
  }

  void add_quantize(const QuantizeWork& work) {
    QuantizeTime time{.work = work};
    const double plain = machine_.memory.share;
    const auto share = [&](const QuantSpec& spec) {
      return spec.quantized() ? quantizer_share(spec, plain) : 1.0;
    };
    const PassBytes bytes = quantize_bytes(work, machine_, t_.work.compute);
    time.read_bytes = work.count * bytes.read;
    time.written_bytes = work.count * bytes.written;
    // Passes that only look for the amax run at the memory's own share.
    const double amax_bytes = time.read_bytes * (work.reads - 1) / work.reads;
    const double rest = time.read_bytes + time.written_bytes - amax_bytes;
    const double rate =
        machine_.memory.peak * std::min({plain, share(work.rowwise), share(work.columnwise)});
    time.seconds = add("quant", work.part, 0, 0, amax_bytes, machine_.memory.attained(),
                       work.count * (work.reads - 1));
    time.seconds += add("quant", work.part, 0, 0, rest, rate, work.count);
    t_.quantizations.push_back(time);
  }

  void add_attention() {
    const StepWork& w = t_.work;
    if (const TypeCosts* costs = measured()) {
      const double launches = w.attention_calls * machine_.launch_s;
      const auto seconds = [&](const AttentionCost& cost) {
        return w.attention_triangles * cost.seconds(w.seq_len, w.head_dim);
      };
      add_seconds("attn", StepPart::kForward, w.attention_forward_flops, w.attention_forward_bytes,
                  Bound::kMatrix, seconds(costs->attention_forward), launches);
      add_seconds("attn", StepPart::kBackward, w.attention_backward_flops,
                  w.attention_backward_bytes, Bound::kMatrix, seconds(costs->attention_backward),
                  launches);
      return;
    }
    const double peak = machine_.product(w.compute).peak * attention_factor(w.seq_len, w.head_dim);
    add("attn", StepPart::kForward, w.attention_forward_flops, peak * machine_.attention_forward,
        w.attention_forward_bytes, machine_.memory.attained(), w.attention_calls);
    add("attn", StepPart::kBackward, w.attention_backward_flops, peak * machine_.attention_backward,
        w.attention_backward_bytes, machine_.memory.attained(), w.attention_calls);
  }

  void add_comm() {
    t_.comm = step_comm(t_.work, config_.model, config_.parallel.gradients, machine_, windows_);
    for (const CommTime& c : t_.comm) {
      PhaseTime& p = phase(c.phase);
      p.bytes += c.bytes;
      p.seconds_by[static_cast<size_t>(c.bound)] += c.exposed_s;
    }
  }

  void sort_phases() {
    constexpr std::array<std::string_view, 8> kBehindProducts{
        "attn", "head_loss", "grad_reduce", "param_gather", "tp_comm", "clip", "optim", "other"};
    const auto place = [&](const PhaseTime& p) -> size_t {
      if (p.phase == "embed") return 0;
      if (p.phase == "norm_elem") return 1;
      if (p.phase == "quant") return 2;
      const auto* found = std::find(kBehindProducts.begin(), kBehindProducts.end(), p.phase);
      return found == kBehindProducts.end()
                 ? 3
                 : 4 + static_cast<size_t>(found - kBehindProducts.begin());
    };
    std::stable_sort(t_.phases.begin(), t_.phases.end(),
                     [&](const PhaseTime& a, const PhaseTime& b) { return place(a) < place(b); });
    std::erase_if(t_.phases, [](const PhaseTime& p) { return p.seconds() == 0; });
  }

  const Config& config_;
  const MachineModel& machine_;
  StepTime t_;
  Windows windows_;
};

}  // namespace

double PhaseTime::seconds() const {
  return std::accumulate(seconds_by.begin(), seconds_by.end(), 0.0);
}

Bound PhaseTime::bound() const {
  return static_cast<Bound>(std::max_element(seconds_by.begin(), seconds_by.end()) -
                            seconds_by.begin());
}

double StepTime::seconds() const {
  return std::accumulate(phases.begin(), phases.end(), 0.0,
                         [](double sum, const PhaseTime& p) { return sum + p.seconds(); });
}

StepTime predict_step(const Config& config, const MachineModel& machine, int n_ranks) {
  return Predictor(config, machine, n_ranks).predict();
}

}  // namespace qstep::trainer
