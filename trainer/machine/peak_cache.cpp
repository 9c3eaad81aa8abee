#include "trainer/machine/peak_cache.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "ops/cpu_library.h"
#include "trainer/machine/machine.h"

namespace qstep::trainer {

namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr int kSchema = 1;

// The fields of an entry, in both directions: f(key, field).
template <class Key, class Kept, class F>
void for_each_field(Key& key, Kept& kept, F&& f) {
  f("cpu", key.cpu);
  f("threads", key.threads);
  f("ranks", key.ranks);
  f("build", key.build);
  f("measurements", kept.measurements);
  auto& r = kept.rates;
  f("bf16_register_flops_per_s", r.bf16_register_flops_per_s);
  f("fp32_register_flops_per_s", r.fp32_register_flops_per_s);
  f("bf16_gemm_flops_per_s", r.bf16_gemm_flops_per_s);
  f("fp32_gemm_flops_per_s", r.fp32_gemm_flops_per_s);
  f("gemm_size", r.gemm_size);
  f("triad_bytes_per_s", r.triad_bytes_per_s);
  f("triad_array_bytes", r.triad_array_bytes);
}

struct Entry {
  PeakKey key;
  KeptPeak kept;
};

// None of a file that is not there, or not whole.
std::vector<Entry> read(const std::string& path) {
  std::vector<Entry> entries;
  std::ifstream in(path);
  const Json json = Json::parse(in, nullptr, /*allow_exceptions=*/false);
  try {
    if (json.at("schema") != kSchema) return {};
    for (const Json& row : json.at("peaks")) {
      Entry entry;
      for_each_field(entry.key, entry.kept,
                     [&](const char* name, auto& field) { row.at(name).get_to(field); });
      entry.kept.rates.n_threads = entry.key.threads;
      entries.push_back(std::move(entry));
    }
  } catch (const Json::exception&) {
    return {};
  }
  return entries;
}

// In place of the file, by rename: others read the old one or the new one.
void write(const std::string& path, const std::vector<Entry>& entries) {
  Json json = {{"schema", kSchema}, {"peaks", Json::array()}};
  for (const Entry& entry : entries) {
    Json row;
    for_each_field(entry.key, entry.kept,
                   [&](const char* name, const auto& field) { row[name] = field; });
    json["peaks"].push_back(std::move(row));
  }
  std::error_code failed;
  fs::create_directories(fs::path(path).parent_path(), failed);
  const std::string beside = fmt::format("{}.{}", path, ::getpid());
  std::ofstream out(beside);
  out << json.dump(1) << "\n";
  out.close();
  if (out) {
    fs::rename(beside, path, failed);
  } else {
    fs::remove(beside, failed);
  }
}

std::string peak_build() {
  return fmt::format("{} by {}, oneDNN {} with {}", ops::built_for(), __VERSION__,
                     ops::onednn_version(), ops::onednn_instructions());
}

bool same_but_build(const PeakKey& a, PeakKey b) {
  b.build = a.build;
  return a == b;
}

}  // namespace

PeakKey peak_key(int64_t threads, int64_t ranks) {
  return {
      .cpu = read_machine().cpu_name, .threads = threads, .ranks = ranks, .build = peak_build()};
}

std::optional<KeptPeak> PeakCache::find(const PeakKey& key) const {
  if (path_.empty()) return std::nullopt;
  for (const Entry& entry : read(path_)) {
    if (entry.key == key) return entry.kept;
  }
  return std::nullopt;
}

KeptPeak PeakCache::add(const PeakKey& key, const PeakRates& measured) const {
  KeptPeak kept{measured, 1};
  if (path_.empty()) return kept;
  std::vector<Entry> entries = read(path_);
  std::erase_if(entries, [&](const Entry& entry) {
    if (entry.key == key) {
      kept = {best_of(entry.kept.rates, measured), entry.kept.measurements + 1};
    }
    return same_but_build(entry.key, key);
  });
  entries.push_back({key, kept});
  write(path_, entries);
  return kept;
}

PeakCache user_peak_cache() {
  const char* const cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache == '/')
    return PeakCache(fmt::format("{}/qstep/peaks.json", cache));
  const char* const home = std::getenv("HOME");
  if (home == nullptr || *home != '/') return PeakCache("");
  return PeakCache(fmt::format("{}/.cache/qstep/peaks.json", home));
}

}  // namespace qstep::trainer
