#include "trainer/checkpoint/checkpoint_state.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <type_traits>

#include "ops/error.h"

namespace qstep::trainer {
namespace {

// Reading accepts this version only; a new field without a safe default raises it.
constexpr int64_t kStateVersion = 1;

// The one list of fields. Written before recipes had a text, a checkpoint lacks recipe_toml: it
// names a recipe of the binary.
constexpr std::string_view kOptional = "recipe_toml";
template <class State, class F>
void for_each_field(State& s, F&& f) {
  f("step", s.step);
  f("tokens", s.tokens);
  f("updates", s.updates);
  f("skipped_steps", s.skipped_steps);
  f("bad_steps_in_a_row", s.bad_steps_in_a_row);
  f("seed", s.seed);
  f("vocab_size", s.vocab_size);
  f("config_toml", s.config_toml);
  f(kOptional.data(), s.recipe_toml);
  f("config_hash", s.config_hash);
  f("data_content_hash", s.data_content_hash);
  f("tokenizer", s.tokenizer);
  f("tokenizer_sha256", s.tokenizer_sha256);
}

[[noreturn]] void fail(const std::string& where, const std::string& what) {
  throw ops::Error(ops::ExitCode::kCheckpoint, fmt::format("{}: {}", where, what));
}

template <class T>
bool has_type(const nlohmann::ordered_json& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    return value.is_string();
  } else if constexpr (std::is_same_v<T, uint64_t>) {
    return value.is_number_unsigned();
  } else {
    return value.is_number_integer();
  }
}

}  // namespace

std::string state_to_json(const CheckpointState& state) {
  nlohmann::ordered_json json;
  json["state_version"] = kStateVersion;
  for_each_field(state, [&](const char* name, const auto& field) { json[name] = field; });
  return json.dump(1) + "\n";
}

CheckpointState state_from_json(const std::string& text, const std::string& where) {
  const auto json = nlohmann::ordered_json::parse(text, nullptr, false);
  if (!json.is_object()) fail(where, "expected a JSON object");
  const auto version = json.find("state_version");
  if (version == json.end() || *version != kStateVersion) {
    fail(where, fmt::format("expected state_version {}, found {}; use the qstep that wrote it",
                            kStateVersion, version == json.end() ? "none" : version->dump()));
  }
  CheckpointState state;
  for_each_field(state, [&](const char* name, auto& field) {
    using T = std::remove_reference_t<decltype(field)>;
    const auto found = json.find(name);
    if (found == json.end() && name == kOptional) return;
    if (found == json.end()) fail(where, fmt::format("field {} is missing", name));
    if (!has_type<T>(*found)) {
      fail(where,
           fmt::format("field {}: expected {}, found {}", name,
                       std::is_same_v<T, std::string> ? "a string" : "an integer", found->dump()));
    }
    field = found->template get<T>();
  });
  return state;
}

}  // namespace qstep::trainer
