#include "trainer/base/json_lines.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "ops/error.h"
#include "trainer/base/durable_files.h"

namespace qstep::trainer {

namespace {

[[noreturn]] void fail(const std::string& path, const char* what) {
  throw ops::Error(ops::ExitCode::kDisk,
                   fmt::format("{}: cannot {}: {}; free space or choose another run.dir", path,
                               what, std::strerror(errno)));
}

}  // namespace

void keep_rows(const std::string& path, int64_t last_step,
               const std::function<void(const nlohmann::json&, int64_t)>& f) {
  std::ifstream in(path);
  if (!in) return;
  std::string kept;
  for (std::string line; last_step > 0 && std::getline(in, line);) {
    const auto row = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!row.is_object()) continue;
    const auto found = row.find("step");
    const int64_t step = found != row.end() && found->is_number() ? found->get<int64_t>() : 0;
    if (step > last_step) continue;
    f(row, step);
    kept += line + '\n';
  }
  CheckpointFiles().replace_file(path, kept);
}

std::string type_of_row(const nlohmann::json& row) {
  const auto type = row.find("type");
  return type != row.end() && type->is_string() ? type->get<std::string>() : std::string();
}

void JsonText::put_key(std::string_view key) {
  fmt::format_to(std::back_inserter(text_), "{}\"{}\":", first_key_ ? "" : ",", key);
  first_key_ = false;
}

void JsonText::put(std::string_view key, std::string_view text) {
  put_key(key);
  fmt::format_to(std::back_inserter(text_), "{}", nlohmann::json(text).dump());
}

void JsonText::put_texts(std::string_view key, std::span<const std::string_view> texts) {
  put_key(key);
  fmt::format_to(std::back_inserter(text_), "{}", nlohmann::json(texts).dump());
}

void JsonText::put_null(std::string_view key) {
  put_key(key);
  fmt::format_to(std::back_inserter(text_), "null");
}

void JsonText::open() {
  text_.push_back('{');
  first_key_ = true;
}

void JsonText::open_object(std::string_view key) {
  put_key(key);
  open();
}

void JsonText::close_object() {
  text_.push_back('}');
  first_key_ = false;
}

JsonLines::JsonLines(const std::string& path) : path_(path) {
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) fail(path, "open for writing");
}

JsonLines::~JsonLines() { ::close(fd_); }

void JsonLines::open(std::string_view type, int64_t step) {
  line_.clear();
  line_.open();
  put("type", type);
  put("step", step);
}

void JsonLines::append() {
  line_.close_object();
  line_.separate("\n");
  const std::string_view line = line_.text();
  const ssize_t written = ::write(fd_, line.data(), line.size());
  if (written >= 0 && written < static_cast<ssize_t>(line.size())) errno = ENOSPC;  // cut short
  if (written != static_cast<ssize_t>(line.size())) fail(path_, "append a row");
}

void JsonLines::sync() const {
  if (::fsync(fd_) != 0) fail(path_, "make the rows durable");
}

}  // namespace qstep::trainer
