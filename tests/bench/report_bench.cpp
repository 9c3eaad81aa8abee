// How long a report of a long run takes: a made-up run folder of many steps and ranks, read,
// computed and written as a page.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "trainer/report/report_html.h"
#include "trainer/report/report_json.h"
#include "trainer/report/report_markdown.h"
#include "trainer/run/timing_rows.h"

namespace qstep::trainer::report {
namespace {

constexpr int64_t kRowsEvery = 10;  // the default of timing.every
constexpr std::array kOps = {"qkv", "attn_out", "up", "down"};

// Varies over steps and parts, the same in every call.
double vary(int64_t step, int64_t part) {
  return 1 + 0.05 * std::sin(static_cast<double>(step * 7 + part * 13)) +
         (step % 97 == 0 ? 0.3 : 0.0);
}

void write_steps(const std::string& folder, int64_t steps, int64_t ranks) {
  fmt::memory_buffer rows;
  const auto put = std::back_inserter(rows);
  fmt::format_to(
      put,
      R"({{"type":"run","step":1,"schema":1,"time_unix_s":1795300000,"config_hash":"abc",)"
      R"("recipe":"nvfp4","emulated":true,"ranks":{},"tensor":1,"n_parameters":124475904,)"
      R"("flops_per_token_causal":8e8}})"
      "\n",
      ranks);
  for (int64_t s = 1; s <= steps; ++s) {
    const double ms = 100 * vary(s, 0);
    fmt::format_to(
        put,
        R"({{"type":"step","step":{},"loss":{},"lr":0.001,"grad_norm":{},"step_ms":{},)"
        R"("tokens":4096,"tokens_total":{},"tokens_per_s":40960,"model_flops_per_s":3e13,)"
        R"("peak_rss_bytes":1234567890,"skipped":false,"non_finite_input":null,)"
        R"("phases_ms":{{"data":0.1,"forward":{},"backward":{},"optimizer":5,"comm":3,"other":0.5}},)"
        R"("breakdown_ms":{{"data_wait":0.1,"embed":1,"norm_elem":8,"quant":{},"gemm_nvfp4":{},)"
        R"("attn":12,"head_loss":9,"grad_reduce":3,"clip":1,"optim":5,"host_gap":0.4,"other":0.5}},)"
        R"("comm_exposed_ms":3,"comm_busy_ms":11,"comm_bytes":24000000}})"
        "\n",
        s, 11 - std::log(static_cast<double>(s)), vary(s, 1), ms, 4096 * s, 0.3 * ms,
        0.7 * ms - 8.6, 0.2 * ms, 0.8 * ms - 40);
    if (s % 100 == 0) {
      fmt::format_to(put,
                     R"({{"type":"eval","step":{},"loss":{},"bits_per_byte":2.5,"tokens":65536,)"
                     R"("eval_ms":900,"precision":"nvfp4 emulated"}})"
                     "\n",
                     s, 11.1 - std::log(static_cast<double>(s)));
    }
  }
  std::ofstream(folder + "/metrics.jsonl").write(rows.data(), std::ssize(rows));
}

void write_rank(const std::string& folder, int rank, int64_t steps, int64_t layers) {
  fmt::memory_buffer rows;
  const auto put = std::back_inserter(rows);
  fmt::format_to(put,
                 R"({{"type":"rank_run","step":1,"schema":1,"rank":{},"host":"node{}","pid":1,)"
                 R"("tensor_rank":0,"data_rank":{},"threads":2,"note_ns":60}})"
                 "\n"
                 R"({{"type":"memory","step":1,"rank":{},"owner":"weights","bytes":248951808}})"
                 "\n",
                 rank, rank, rank, rank);
  for (int64_t s = kRowsEvery; s <= steps; s += kRowsEvery) {
    const std::string window =
        fmt::format(R"("step":{},"steps":{},"rank":{})", s, kRowsEvery, rank);
    for (int64_t layer = 0; layer < layers; ++layer) {
      for (const char* phase : {"norm_elem", "quant", "gemm_nvfp4", "attn"}) {
        for (const char* pass : {"forward", "backward"}) {
          fmt::format_to(
              put,
              R"({{"type":"phase",{},"phase":"{}","layer":{},"pass":"{}","ms":{},"calls":40}})"
              "\n",
              window, phase, layer, pass, 8 * vary(s, layer + rank));
        }
      }
      for (const char* op : kOps) {
        for (const char* pass : {"fprop", "dgrad", "wgrad"}) {
          fmt::format_to(
              put,
              R"({{"type":"gemm",{},"layer":{},"op":"{}","pass":"{}","m":4096,"n":3072,"k":768,)"
              R"("format_a":"nvfp4","format_b":"nvfp4","emulated":true,"calls":10,"ms":{},)"
              R"("tflops":1.2345678901234567}})"
              "\n",
              window, layer, op, pass, 5 * vary(s, layer));
        }
      }
    }
    for (const char* op : {"reduce_scatter", "all_gather"}) {
      fmt::format_to(put,
                     R"({{"type":"comm",{},"group":"data","op":"{}","calls":130,"bytes":498000000,)"
                     R"("total_ms":{},"exposed_ms":15.5}})"
                     "\n",
                     window, op, 55 * vary(s, rank));
    }
  }
  std::ofstream(timing_rows_path(folder, rank)).write(rows.data(), std::ssize(rows));
}

void write_ledger(const std::string& folder, int64_t steps, int64_t layers) {
  fmt::memory_buffer rows;
  const auto put = std::back_inserter(rows);
  fmt::format_to(put, "{{\"type\":\"ledger\",\"step\":0,\"schema\":1}}\n");
  for (int64_t s = 1; s <= steps; s += 100) {
    for (int64_t layer = 0; layer < layers; ++layer) {
      for (const char* op : kOps) {
        for (const auto slot : precision::kOperandSlotNames) {
          fmt::format_to(
              put,
              R"({{"type":"operand","step":{},"layer":"blocks.{}.{}","operand":"{}",)"
              R"("format":"nvfp4 1x16","emulated":true,"elements":3145728,"blocks":196608,)"
              R"("amax":4.25,"scale":0.5,"underflowed_share":{},"saturated_share":0,)"
              R"("non_finite_share":0,"zero_scale_share":0,"relative_mse":0.01,"snr_db":{}}})"
              "\n",
              s, layer, op, slot, 0.07 * vary(s, layer), 20 * vary(s, layer + 3));
        }
      }
    }
  }
  std::ofstream(folder + "/ledger.jsonl").write(rows.data(), std::ssize(rows));
}

int run(int argc, char** argv) {
  int64_t steps = 10000, layers = 12;
  int ranks = 2;
  std::string folder;
  CLI::App app("How long a report of a long run takes");
  app.add_option("--steps", steps)->capture_default_str();
  app.add_option("--layers", layers)->capture_default_str();
  app.add_option("--ranks", ranks)->capture_default_str();
  app.add_option("--keep", folder, "leave run/ and report.html in this folder");
  CLI11_PARSE(app, argc, argv);
  namespace fs = std::filesystem;
  const bool keep = !folder.empty();
  if (!keep) folder = fs::temp_directory_path() / fmt::format("qstep_bench_report_{}", ::getpid());
  const std::string run_folder = folder + "/run";
  fs::create_directories(run_folder);
  write_steps(run_folder, steps, ranks);
  for (int rank = 0; rank < ranks; ++rank) write_rank(run_folder, rank, steps, layers);
  write_ledger(run_folder, steps, layers);
  int64_t bytes = 0;
  for (const auto& file : fs::directory_iterator(run_folder)) {
    bytes += static_cast<int64_t>(file.file_size());
  }
  fmt::print("{} steps, {} ranks, {} layers: {:.1f} MB of rows\n", steps, ranks, layers,
             static_cast<double>(bytes) * 1e-6);

  using Clock = std::chrono::steady_clock;
  Clock::time_point start = Clock::now();
  const auto lap = [&](const char* what) {
    const Clock::time_point now = Clock::now();
    fmt::print("  {:<10} {:7.3f} s\n", what, std::chrono::duration<double>(now - start).count());
    start = now;
  };
  const Run read = read_run(run_folder);
  lap("read");
  const Json json = report_json({&read, 1});
  lap("compute");
  const std::string html = report_html(json), markdown = report_markdown(json);
  lap("render");
  fmt::print("  page {:.3f} MB, markdown {:.3f} MB\n", static_cast<double>(html.size()) * 1e-6,
             static_cast<double>(markdown.size()) * 1e-6);
  if (keep) {
    std::ofstream(folder + "/report.html") << html;
  } else {
    fs::remove_all(folder);
  }
  return 0;
}

}  // namespace
}  // namespace qstep::trainer::report

int main(int argc, char** argv) {
  try {
    return qstep::trainer::report::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
