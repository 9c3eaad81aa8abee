#include "trainer/run/ledger_file.h"

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "ops/error.h"

namespace qstep::trainer {

using ops::Error;
using ops::ExitCode;

namespace {

// Calls f(key, field) for the fields of a row, in the order of the file.
template <class Row, class F>
void for_each_field(Row& r, F&& f) {
  f("layer", r.layer);
  f("operand", r.operand);
  f("format", r.format);
  f("emulated", r.emulated);
  f("elements", r.elements);
  f("blocks", r.blocks);
  f("amax", r.amax);
  f("scale", r.scale);
  f("underflowed_share", r.underflowed_share);
  f("saturated_share", r.saturated_share);
  f("non_finite_share", r.non_finite_share);
  f("zero_scale_share", r.zero_scale_share);
  f("relative_mse", r.relative_mse);
  f("snr_db", r.snr_db);
}

bool keeps_header(const std::string& path, int64_t last_step) {
  bool header = false;
  keep_rows(path, last_step, [&](const nlohmann::json& row, int64_t) {
    header = header || type_of_row(row) == "ledger";
  });
  return header;
}

// A row that is read, with where it stands.
struct RowReader {
  const std::string& path;
  int64_t line;
  const nlohmann::json& json;

  // A key that is not there leaves the field as it is.
  template <class T>
  void read(const char* key, T& field) const {
    const auto found = json.find(key);
    if (found == json.end()) return;
    if constexpr (std::is_same_v<T, float>) {
      expect(found->is_number() || found->is_null(), key, "a number or null");
      field = found->is_null() ? std::numeric_limits<float>::quiet_NaN() : found->get<float>();
    } else {
      if constexpr (std::is_same_v<T, bool>) {
        expect(found->is_boolean(), key, "true or false");
      } else if constexpr (std::is_same_v<T, int64_t>) {
        expect(found->is_number_integer(), key, "an integer");
      } else {
        expect(found->is_string(), key, "a text");
      }
      field = found->template get<T>();
    }
  }

 private:
  void expect(bool holds, const char* key, std::string_view expected) const {
    if (holds) return;
    throw Error(ExitCode::kData,
                fmt::format("{}:{}: {}: expected {}, found {}: the row is not as qstep wrote it; "
                            "remove the line, or train anew",
                            path, line, key, expected, json.at(key).dump()));
  }
};

void check_schema(const RowReader& header) {
  int64_t schema = 0;
  header.read("schema", schema);
  if (schema == kLedgerSchema) return;
  throw Error(
      ExitCode::kConfig,
      fmt::format("{}: schema {}, this qstep reads {}; read it with the qstep that wrote it",
                  header.path, schema, kLedgerSchema));
}

}  // namespace

LedgerRow ledger_row(int64_t step, const LedgerEntry& entry) {
  const ops::QuantStats& s = entry.stats;
  const auto share = [](double part, double whole) {
    return whole > 0 ? static_cast<float>(part / whole) : 0.0f;
  };
  return {.step = step,
          .layer = module_name(entry.module),
          .operand = std::string(precision::kOperandSlotNames[static_cast<size_t>(entry.slot)]),
          .format = *entry.format,
          .emulated = !entry.native,
          .elements = static_cast<int64_t>(s.elements),
          .blocks = static_cast<int64_t>(s.blocks),
          .amax = static_cast<float>(s.amax),
          .scale = static_cast<float>(s.scale),
          .underflowed_share = share(s.underflowed, s.elements),
          .saturated_share = share(s.saturated, s.elements),
          .non_finite_share = share(s.non_finite, s.elements),
          .zero_scale_share = share(s.zero_scales, s.blocks),
          .relative_mse = static_cast<float>(s.squared_error / s.squared),
          .snr_db = static_cast<float>(10 * std::log10(s.squared / s.squared_error))};
}

nlohmann::ordered_json to_json(const LedgerRow& row) {
  nlohmann::ordered_json json{{"step", row.step}};
  for_each_field(row, [&]<class T>(const char* key, const T& value) {
    if constexpr (std::is_same_v<T, float>) {
      json[key] = std::isfinite(value) ? nlohmann::ordered_json(value) : nullptr;
    } else {
      json[key] = value;
    }
  });
  return json;
}

LedgerFile::LedgerFile(const std::string& path, int64_t last_step)
    : has_header_(keeps_header(path, last_step)), lines_(path) {
  if (has_header_) return;
  lines_.open("ledger", 0);
  lines_.put("schema", kLedgerSchema);
  lines_.append();
}

void LedgerFile::step(int64_t step, const NumericLedger& ledger) {
  for (const LedgerEntry& entry : ledger.entries()) {
    if (entry.micro_batches == 0) continue;
    const LedgerRow row = ledger_row(step, entry);
    lines_.open("operand", step);
    for_each_field(row, [&](const char* key, const auto& value) { lines_.put(key, value); });
    lines_.append();
  }
}

std::vector<LedgerRow> read_ledger(const std::string& path) {
  std::ifstream in(path);
  if (!in) {
    throw Error(ExitCode::kConfig,
                fmt::format("{}: there is no numeric ledger; a run keeps one when its recipe "
                            "quantizes (precision.recipe=nvfp4, say) and "
                            "precision.ledger_every, the steps between its rows, is not 0",
                            path));
  }
  std::vector<LedgerRow> rows;
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) continue;
    const RowReader reader{path, number, json};
    std::string type;
    reader.read("type", type);
    if (type == "ledger") check_schema(reader);
    if (type != "operand") continue;
    LedgerRow& row = rows.emplace_back();
    reader.read("step", row.step);
    for_each_field(row, [&](const char* key, auto& field) { reader.read(key, field); });
  }
  if (rows.empty()) {
    throw Error(ExitCode::kConfig,
                fmt::format("{}: no step has been counted yet; the first one is, then every "
                            "precision.ledger_every-th",
                            path));
  }
  return rows;
}

}  // namespace qstep::trainer
