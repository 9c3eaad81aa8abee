#include "trainer/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "ops/error.h"
#include "trainer/checkpoint_files.h"

namespace qstep::trainer {

namespace {

[[noreturn]] void fail(const std::string& path, const char* what) {
  throw ops::Error(ops::ExitCode::kDisk,
                   fmt::format("{}: cannot {}: {}; free space or choose another run.dir", path,
                               what, std::strerror(errno)));
}

// Shortest digits that read back to the same bits; JSON has no word for what is not finite.
template <class Float>
void put(fmt::memory_buffer& line, const char* key, Float value) {
  if (std::isfinite(value)) {
    fmt::format_to(std::back_inserter(line), ",\"{}\":{}", key, value);
  } else {
    fmt::format_to(std::back_inserter(line), ",\"{}\":null", key);
  }
}

void put_integer(fmt::memory_buffer& line, const char* key, int64_t value) {
  fmt::format_to(std::back_inserter(line), ",\"{}\":{}", key, value);
}

void open_row(fmt::memory_buffer& line, const char* type, int64_t step) {
  line.clear();
  fmt::format_to(std::back_inserter(line), "{{\"type\":\"{}\",\"step\":{}", type, step);
}

}  // namespace

// Rewrites the file with the rows worth keeping: whole ones that speak of nothing later than
// `last_step`.
void MetricsFile::drop_after(int64_t last_step) {
  std::ifstream in(path_);
  if (!in) return;
  std::string kept;
  for (std::string line; last_step > 0 && std::getline(in, line);) {
    const auto row = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!row.is_object()) continue;
    const int64_t step = row.value("step", int64_t{0});
    if (step > last_step) continue;
    if (row.value("type", "") == "eval") last_eval_step_ = step;
    kept += line + '\n';
  }
  CheckpointFiles().replace_file(path_, kept);
}

MetricsFile::MetricsFile(const std::string& path, int64_t last_step) : path_(path) {
  drop_after(last_step);
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) fail(path, "open for writing");
}

MetricsFile::~MetricsFile() { ::close(fd_); }

void MetricsFile::run(const std::string& config_hash, const std::string& recipe, int64_t first_step,
                      int64_t n_parameters, double flops_per_token) {
  open_row(line_, "run", first_step);
  put_integer(line_, "schema", kMetricsSchema);
  put_integer(line_, "time_unix_s", static_cast<int64_t>(std::time(nullptr)));
  fmt::format_to(std::back_inserter(line_), ",\"config_hash\":\"{}\",\"recipe\":\"{}\"",
                 config_hash, recipe);
  put_integer(line_, "n_parameters", n_parameters);
  put(line_, "flops_per_token_causal", flops_per_token);
  append_line();
}

void MetricsFile::step(const StepRow& row) {
  open_row(line_, "step", row.step);
  put(line_, "loss", row.loss);
  put(line_, "lr", row.lr);
  put(line_, "grad_norm", row.grad_norm);
  put(line_, "step_ms", row.step_ms);
  put_integer(line_, "tokens", row.tokens);
  put_integer(line_, "tokens_total", row.tokens_total);
  put(line_, "tokens_per_s", row.tokens_per_s);
  put(line_, "model_flops_per_s", row.model_flops_per_s);
  put_integer(line_, "peak_rss_bytes", row.peak_rss_bytes);
  fmt::format_to(std::back_inserter(line_), ",\"skipped\":{},\"phases_ms\":{{", row.skipped);
  for (size_t i = 0; i < kPhaseNames.size(); ++i) {
    fmt::format_to(std::back_inserter(line_), "{}\"{}\":{}", i == 0 ? "" : ",", kPhaseNames[i],
                   row.phases_ms[i]);
  }
  line_.push_back('}');
  append_line();
}

void MetricsFile::eval(const EvalRow& row) {
  open_row(line_, "eval", row.step);
  put(line_, "loss", row.loss);
  put(line_, "bits_per_byte", row.bits_per_byte);
  put_integer(line_, "tokens", row.tokens);
  put(line_, "eval_ms", row.eval_ms);
  append_line();
  last_eval_step_ = row.step;
}

void MetricsFile::checkpoint(const CheckpointRow& row) {
  open_row(line_, "checkpoint", row.step);
  put(line_, "save_ms", row.save_ms);
  fmt::format_to(std::back_inserter(line_), ",\"path\":{}", nlohmann::json(row.path).dump());
  append_line();
}

void MetricsFile::sync() const {
  if (::fsync(fd_) != 0) fail(path_, "make the rows durable");
}

void MetricsFile::append_line() {
  line_.push_back('}');
  line_.push_back('\n');
  const ssize_t written = ::write(fd_, line_.data(), line_.size());
  if (written >= 0 && written < static_cast<ssize_t>(line_.size())) errno = ENOSPC;  // cut short
  if (written != static_cast<ssize_t>(line_.size())) fail(path_, "append a row");
}

}  // namespace qstep::trainer
