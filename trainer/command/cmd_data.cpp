#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/llmc_tokens.h"
#include "data/prepare.h"
#include "data/token_store.h"
#include "ops/error.h"
#include "trainer/base/progress_line.h"
#include "trainer/base/signals.h"
#include "trainer/command/commands.h"

namespace qstep::trainer {
namespace {

using data::Part;
using nlohmann::json;

// ---- interruption ---------------------------------------------------------------------

// Runs `work` so that the first stop signal ends it between two pieces of data, which lets it
// remove what it has written.
template <class Work>
void run_interruptible(int& exit_code, Work work) {
  install_signal_handlers();
  try {
    work();
  } catch (const Interrupted&) {
    fmt::print(stderr, "interrupted: nothing was written\n");
    exit_code = static_cast<int>(ops::ExitCode::kInterrupted);
  }
}

// ---- what a store is, for people and for scripts --------------------------------------

json to_json(const data::StoreInfo& info, const std::string& path) {
  json out = {{"path", path},
              {"format_version", info.format_version},
              {"tokenizer", info.tokenizer},
              {"tokenizer_sha256", info.tokenizer_sha256},
              {"vocab_size", info.vocab_size},
              {"eos_id", info.eos_id},
              {"token_type", data::type_name(info.token_type)},
              {"source", info.source}};
  for (const Part part : data::kParts) {
    const data::PartInfo& p = info.part(part);
    out[std::string(data::part_name(part))] = {{"num_tokens", p.num_tokens},
                                               {"num_documents", p.num_documents},
                                               {"num_bytes", p.num_bytes},
                                               {"content_hash", p.content_hash}};
  }
  return out;
}

std::string bytes_text(const data::PartInfo& part) {
  if (part.num_bytes == 0 || part.num_tokens == 0) return "text size unknown";
  return fmt::format("{:.1f} MB of text, {:.2f} bytes per token", double(part.num_bytes) / 1e6,
                     double(part.num_bytes) / double(part.num_tokens));
}

void print_store(const data::StoreInfo& info, const std::string& path) {
  fmt::print("{}\n", path);
  fmt::print("  tokenizer   {} (vocabulary {}, end of document {})\n", info.tokenizer,
             info.vocab_size, info.eos_id);
  for (const Part part : data::kParts) {
    const data::PartInfo& p = info.part(part);
    if (p.num_tokens == 0) {
      fmt::print("  {:<11} none\n", data::part_name(part));
      continue;
    }
    fmt::print("  {:<11} {} tokens in {} documents; {}\n", data::part_name(part), p.num_tokens,
               p.num_documents, bytes_text(p));
  }
}

// ---- subcommands ----------------------------------------------------------------------

struct PrepareArguments {
  data::PrepareOptions options;
  std::string tokenizer = "sentencepiece";
  uint64_t tokenizer_sample_mib = 0;
};

void run_prepare(PrepareArguments& arguments) {
  data::PrepareOptions& options = arguments.options;
  using data::TokenizerKind;
  options.tokenizer = arguments.tokenizer == "bytes"           ? TokenizerKind::kBytes
                      : arguments.tokenizer == "sentencepiece" ? TokenizerKind::kSentencePiece
                                                               : TokenizerKind::kModelFile;
  options.model_path = arguments.tokenizer;
  options.train_tokenizer_max_bytes = arguments.tokenizer_sample_mib << 20;

  ProgressLine line;
  bool begun = false;
  data::PreparePhase current{};
  const auto progress = [&](data::PreparePhase phase, uint64_t done, uint64_t total) {
    if (!begun || phase != current) {
      begun = true;
      current = phase;
      line.begin(phase == data::PreparePhase::kScan ? "reading " : "encoding");
      if (phase == data::PreparePhase::kTrainTokenizer) {
        fmt::print(stderr, "training a tokenizer of {} pieces ...\n", options.vocab_size);
      }
    }
    line.update(done, total);
  };
  const data::PrepareResult result = data::prepare(options, progress);
  line.end();
  print_store(result.info, options.output);
  fmt::print("  text        {} documents in {} files, {:.1f} MB\n", result.n_documents,
             result.n_files, double(result.text_bytes) / 1e6);
  if (result.split == data::SplitRule::kTail) {
    fmt::print("  validation is the end of the text: there are too few documents to pick from\n");
  }
  if (options.tokenizer == TokenizerKind::kSentencePiece &&
      result.info.vocab_size < options.vocab_size) {
    fmt::print(
        "  the text has only {} different pieces; the vocabulary is smaller than asked for\n",
        result.info.vocab_size);
  }
}

void add_prepare(CLI::App& group, int& exit_code) {
  auto arguments = std::make_shared<PrepareArguments>();
  data::PrepareOptions& options = arguments->options;
  arguments->tokenizer_sample_mib = options.train_tokenizer_max_bytes >> 20;
  CLI::App* command = group.add_subcommand("prepare", "Tokenize text into a token store");
  command
      ->add_option("inputs", options.inputs,
                   "Files and folders: .jsonl has a document per line, any other file is one "
                   "document; .gz and .zst are decompressed")
      ->required();
  command->add_option("-o,--output", options.output, "Token store to write")->required();
  command->add_option("--glob", options.globs, "Files to take from folders (repeatable)")
      ->allow_extra_args(false)
      ->capture_default_str();
  command->add_option("--field", options.field, "Field of .jsonl lines that holds the text")
      ->capture_default_str();
  command
      ->add_option("--tokenizer", arguments->tokenizer,
                   "sentencepiece (trained on the text), bytes, or an existing .model file")
      ->capture_default_str();
  command->add_option("--vocab-size", options.vocab_size, "Ids of the trained tokenizer, at most")
      ->capture_default_str();
  command
      ->add_option("--tokenizer-sample-mib", arguments->tokenizer_sample_mib,
                   "Text that the tokenizer is trained on, at most")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command
      ->add_option("--validation-fraction", options.validation_fraction,
                   "Part of the text that is held out (0 to 0.5); raised for small texts, 0: none")
      ->capture_default_str();
  command->add_option("--seed", options.seed, "Chooses the held-out documents and the sample")
      ->capture_default_str();
  command->footer(
      "Example:\n  qstep data prepare book.txt notes/ --glob '*.txt' --vocab-size 8192 -o "
      "corpus.h5");
  command->callback(
      [arguments, &exit_code] { run_interruptible(exit_code, [&] { run_prepare(*arguments); }); });
}

struct StoreArguments {
  std::string path;
  bool as_json = false;
};

// `info` and `verify` take the same arguments.
template <class Run>
void add_store_command(CLI::App& group, int& exit_code, const char* name, const char* help,
                       Run run) {
  auto arguments = std::make_shared<StoreArguments>();
  CLI::App* command = group.add_subcommand(name, help);
  command->add_option("store", arguments->path, "Token store (.h5)")->required();
  command->add_flag("--json", arguments->as_json, "Print JSON");
  command->footer(fmt::format("Example:\n  qstep data {} corpus.h5 --json", name));
  command->callback(
      [arguments, run, &exit_code] { run_interruptible(exit_code, [&] { run(*arguments); }); });
}

void run_info(const StoreArguments& arguments) {
  const data::TokenStore store = data::TokenStore::open(arguments.path);
  if (arguments.as_json) {
    fmt::print("{}\n", to_json(store.info(), store.path()).dump(2));
    return;
  }
  print_store(store.info(), store.path());
  fmt::print("  format      version {}, {} tokens\n", store.info().format_version,
             data::type_name(store.info().token_type));
  fmt::print("  tokenizer   SHA-256 {}\n", store.info().tokenizer_sha256);
  for (const Part part : data::kParts) {
    const data::PartInfo& p = store.info().part(part);
    if (!p.content_hash.empty()) {
      fmt::print("  {:<11} content hash {}\n", data::part_name(part), p.content_hash);
    }
  }
  fmt::print("  source      {}\n", store.info().source);
}

void run_verify(const StoreArguments& arguments) {
  const data::TokenStore store = data::TokenStore::open(arguments.path);
  ProgressLine line;
  line.begin("verifying");
  store.verify([&](uint64_t done, uint64_t total) { line.update(done, total); });
  line.end();
  if (arguments.as_json) {
    json out = to_json(store.info(), store.path());
    out["verified"] = true;
    fmt::print("{}\n", out.dump(2));
    return;
  }
  print_store(store.info(), store.path());
  fmt::print("  verified    checksums, token range, document borders, content hashes\n");
}

void add_import(CLI::App& group, int& exit_code) {
  struct Arguments {
    data::LlmcImport import;
    std::string format;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      group.add_subcommand("import", "Turn another program's token files into a store");
  command->add_option("files", arguments->import.train, "Token files to train on, in order")
      ->required();
  command->add_option("--from", arguments->format, "Format of the files")
      ->required()
      ->check(CLI::IsMember({"llmc"}));
  command
      ->add_option("--validation", arguments->import.validation,
                   "Token file to validate on (repeatable)")
      ->allow_extra_args(false);
  command->add_option("-o,--output", arguments->import.output, "Token store to write")->required();
  command->footer(
      "Example:\n  qstep data import --from llmc tiny_shakespeare_train.bin "
      "--validation tiny_shakespeare_val.bin -o corpus.h5");
  command->callback([arguments, &exit_code] {
    run_interruptible(exit_code, [&] {
      ProgressLine line;
      line.begin("importing");
      const data::StoreInfo info = data::import_llmc(
          arguments->import, [&](uint64_t done, uint64_t total) { line.update(done, total); });
      line.end();
      print_store(info, arguments->import.output);
    });
  });
}

}  // namespace

void add_data_command(CLI::App& app, int& exit_code) {
  CLI::App* group = app.add_subcommand("data", "Prepare, inspect, verify and import training data");
  group->require_subcommand(1);
  group->footer("Example:\n  qstep data prepare book.txt -o corpus.h5");
  add_prepare(*group, exit_code);
  add_store_command(*group, exit_code, "info", "Say what a token store contains", run_info);
  add_store_command(*group, exit_code, "verify", "Read a whole token store and check everything",
                    run_verify);
  add_import(*group, exit_code);
}

}  // namespace qstep::trainer
