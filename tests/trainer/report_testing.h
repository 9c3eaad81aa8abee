// Run folders made up line by line, for the tests of reports.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <string>

#include "tests/data/test_files.h"
#include "trainer/report/report_json.h"

namespace qstep::trainer::report::testing {

inline constexpr int64_t kStartTime = 1795300000;  // of every made-up run

class MadeUpRun {
 public:
  explicit MadeUpRun(const std::string& name = "a") : path_(folder_ / name) {}

  void start(int64_t step, const std::string& recipe = "nvfp4", bool emulated = true,
             int64_t ranks = 1, int64_t time_s = kStartTime) {
    metrics_ += fmt::format(
        R"({{"type":"run","step":{},"schema":1,"time_unix_s":{},"config_hash":"abc","recipe":"{}",)"
        R"("emulated":{},"ranks":{},"tensor":1,"n_parameters":1000,"flops_per_token_causal":6000}})"
        "\n",
        step, time_s, recipe, emulated, ranks);
  }
  // A start on one H200, without and with FP8.
  void start_on_h200(const std::string& peaks = R"({"bf16":989e12,"fp8":1979e12})") {
    metrics_ += fmt::format(
        R"({{"type":"run","step":1,"schema":1,"time_unix_s":{},"config_hash":"abc",)"
        R"("recipe":"fp8-current","emulated":false,"ranks":1,"tensor":1,"n_parameters":1000,)"
        R"("flops_per_token_causal":51.47e9,"peak_machine":"h200","peak_source":"data sheet",)"
        R"("peak_flops_per_s":{},"peak_memory_bytes_per_s":4.8e12}})"
        "\n",
        kStartTime, peaks);
  }
  // Half of it is a GEMM's; losses fall by steps.
  void step(int64_t step, double ms, const std::string& more = "") {
    metrics_ += fmt::format(
        R"({{"type":"step","step":{},"loss":{},"lr":0.001,"grad_norm":1.5,"step_ms":{},)"
        R"("tokens":512,"tokens_total":{},"peak_rss_bytes":1000000,"skipped":false,)"
        R"("phases_ms":{{"data":1,"forward":{},"backward":{},"other":0}},)"
        R"("breakdown_ms":{{"data_wait":1,"gemm_nvfp4":{},"attn":{}}}{}}})"
        "\n",
        step, 9 - 0.001 * static_cast<double>(step), ms, 512 * step, 0.25 * ms, 0.75 * ms - 1,
        0.5 * ms, 0.5 * ms - 1, more);
  }
  void evaluation(int64_t step, double loss, double ms = 20) {
    metrics_ += fmt::format(
        R"({{"type":"eval","step":{},"loss":{},"bits_per_byte":2.5,"tokens":512,"eval_ms":{},)"
        R"("precision":"nvfp4 emulated"}})"
        "\n",
        step, loss, ms);
  }
  void save(int64_t step, double ms = 30) {
    metrics_ += fmt::format(R"({{"type":"checkpoint","step":{},"save_ms":{},"path":"x"}})"
                            "\n",
                            step, ms);
  }
  void line(const std::string& text) { metrics_ += text; }
  void file(const std::string& name, const std::string& text) const {
    data::write_file(path_ + "/" + name, text);
  }
  // Written as a run writes them.
  void ends(double after_s) const {
    const auto end = static_cast<std::time_t>(kStartTime + static_cast<int64_t>(after_s));
    std::array<char, 32> text{};
    std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&end));
    file("exit_reason.json",
         fmt::format(R"({{"code":0,"name":"finished","time":"{}"}})", text.data()));
  }
  Run read() const {
    file("metrics.jsonl", metrics_);
    return read_run(path_);
  }
  Json report() const {
    const Run run = read();
    return report_json({&run, 1}).at("runs").at(0);
  }
  const std::string& path() const { return path_; }

 private:
  data::TempDir folder_;
  std::string path_;
  std::string metrics_;
};

// Steps of 100 ms and a little more, from first to last.
inline void put_steps(MadeUpRun& run, int64_t first, int64_t last) {
  for (int64_t s = first; s <= last; ++s) run.step(s, 100 + static_cast<double>(s % 7));
}

}  // namespace qstep::trainer::report::testing
