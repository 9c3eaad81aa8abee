// qstep generate: text from a checkpoint.
#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "trainer/backend/backend.h"
#include "trainer/base/signals.h"
#include "trainer/command/commands.h"
#include "trainer/command/device_option.h"
#include "trainer/inference/generator.h"

namespace qstep::trainer {

namespace {

struct Options {
  std::string checkpoint;
  std::string prompt;
  std::vector<int32_t> prompt_tokens;
  int64_t tokens = 128;
  SamplingOptions sampling;
  std::string precision;
  Device device = RunConfig{}.device;
  bool ignore_eos = false;
  bool json = false;
};

// Length of the longest prefix that ends at a UTF-8 character: a token may stop in the middle of
// one.
size_t whole_characters(const std::string& text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;  // a continuation: look further back for its lead
    const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return length > back ? text.size() - back : text.size();
  }
  return text.size();
}

// Prints text as it grows; without a tokenizer, token ids.
class Printer {
 public:
  Printer(const data::Tokenizer* tokenizer, bool quiet) : tokenizer_(tokenizer), quiet_(quiet) {}

  void add(int32_t token) {
    if (tokenizer_ == nullptr) {
      put(fmt::format("{}{}", text_.empty() ? "" : " ", token));
      return;
    }
    open_.push_back(static_cast<uint32_t>(token));
    const std::string piece = tokenizer_->decode(open_);
    if (whole_characters(piece) == piece.size()) {
      put(piece);
      open_.clear();
    }
  }
  const std::string& finish() {
    if (!open_.empty()) put(tokenizer_->decode(open_));
    if (!quiet_) fmt::print("\n");
    std::fflush(stdout);  // ahead of what goes to stderr
    return text_;
  }

 private:
  void put(const std::string& piece) {
    text_ += piece;
    if (quiet_) return;
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  }

  const data::Tokenizer* tokenizer_;
  bool quiet_;
  std::vector<uint32_t> open_;  // tokens that end in the middle of a character
  std::string text_;
};

std::vector<int32_t> prompt_ids(const Options& o, const data::Tokenizer* tokenizer,
                                int64_t vocab_size) {
  std::vector<int32_t> ids;
  if (tokenizer != nullptr) {
    // In training every document follows the end of another.
    ids.push_back(static_cast<int32_t>(tokenizer->eos_id()));
    for (const uint32_t id : tokenizer->encode(o.prompt)) ids.push_back(static_cast<int32_t>(id));
  } else {
    ids = o.prompt_tokens;
  }
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size) {
      throw ops::Error(ops::ExitCode::kConfig,
                       fmt::format("--prompt-tokens: {} is outside the vocabulary of {} tokens", id,
                                   vocab_size));
    }
  }
  return ids;
}

void run(const Options& o) {
  const auto ops = make_backend(o.device);
  const LoadedModel loaded(*ops, o.checkpoint, o.precision);
  const auto tokenizer = o.prompt_tokens.empty() ? loaded.tokenizer() : nullptr;
  const std::vector<int32_t> prompt =
      prompt_ids(o, tokenizer.get(), loaded.config().model.vocab_size);
  const int64_t n_tokens = tokenizer ? tokenizer->vocab_size() : loaded.config().model.vocab_size;
  Generator generator(*ops, loaded, static_cast<int64_t>(prompt.size()) + o.tokens, n_tokens);

  const int32_t stop = tokenizer && !o.ignore_eos ? static_cast<int32_t>(tokenizer->eos_id()) : -1;
  install_signal_handlers();
  Printer printer(tokenizer.get(), o.json);
  const GenerationResult result =
      generator.generate(prompt, o.tokens, o.sampling, stop, [&](int32_t token) {
        printer.add(token);
        return !stop_signal();
      });
  const std::string& text = printer.finish();

  const auto rate = [](size_t n, double s) { return s > 0 ? static_cast<double>(n) / s : 0.0; };
  const double prefill = rate(prompt.size(), result.prefill_s);
  const double decode = rate(result.tokens.empty() ? 0 : result.tokens.size() - 1, result.decode_s);
  if (o.json) {
    const nlohmann::json out = {{"checkpoint", loaded.path()},
                                {"step", loaded.state().step},
                                {"recipe", loaded.config().precision.recipe},
                                {"device", ops->name()},
                                {"precision", loaded.precision_text()},
                                {"emulated", loaded.emulated()},
                                {"text", text},
                                {"tokens", result.tokens},
                                {"prompt_tokens", prompt.size()},
                                {"prefill_tokens_per_s", prefill},
                                {"decode_tokens_per_s", decode}};
    fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    fmt::print(
        stderr,
        "[step {} | {} on {} | prompt {} tokens, {:.0f} tok/s | generated {}, {:.1f} tok/s]\n",
        loaded.state().step, loaded.precision_text(), ops->name(), prompt.size(), prefill,
        result.tokens.size(), decode);
  }
}

}  // namespace

void add_generate_command(CLI::App& app, int&) {
  auto options = std::make_shared<Options>();
  Options& o = *options;
  CLI::App* cmd = app.add_subcommand("generate", "Generate text from a checkpoint");
  cmd->add_option("--checkpoint", o.checkpoint, "checkpoint folder, or a run folder (its newest)")
      ->required();
  cmd->add_option("--prompt", o.prompt, "text to continue");
  cmd->add_option("--prompt-tokens", o.prompt_tokens,
                  "token ids to continue, for models without a tokenizer")
      ->delimiter(',')
      ->excludes("--prompt");
  cmd->add_option("--tokens", o.tokens, "tokens to generate at most")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->capture_default_str();
  cmd->add_option("--temperature", o.sampling.temperature, "0 takes the most probable token")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  cmd->add_option("--top-k", o.sampling.top_k, "sample among the k most probable; 0 = all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  cmd->add_option("--top-p", o.sampling.top_p,
                  "sample among the most probable that reach p together")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  cmd->add_option("--seed", o.sampling.seed, "same seed, same text")->capture_default_str();
  cmd->add_option("--precision", o.precision,
                  "recipe (a name or a path); the run's own if not given");
  add_device_option(*cmd, o.device);
  cmd->add_flag("--ignore-eos", o.ignore_eos, "go on after the end of a document");
  cmd->add_flag("--json", o.json, "text, tokens and rates as JSON");
  cmd->footer(
      "Example:\n  qstep generate --checkpoint runs/first --prompt 'int main' --tokens 200 "
      "--temperature 0.8 --top-k 50");
  cmd->callback([options] { run(*options); });
}

}  // namespace qstep::trainer
