// qstep ckpt list | verify | info | import | export
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <vector>

#include "ops/error.h"
#include "trainer/base/format.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_folders.h"
#include "trainer/checkpoint/checkpoint_manifest.h"
#include "trainer/checkpoint/checkpoint_state.h"
#include "trainer/command/commands.h"
#include "trainer/config/config.h"
#include "trainer/inference/loaded_model.h"
#include "trainer/model/llmc_model.h"

namespace qstep::trainer {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

void print_json(const Json& json) {
  // Problems may quote bytes of damaged files.
  fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
}

// One checkpoint, and not a folder of them; a damaged one too.
bool is_one_checkpoint(const std::string& path) {
  std::error_code ignored;
  if (fs::exists(fs::path(path) / kManifestFile, ignored)) return true;
  const std::string name = (fs::path(path) / "").lexically_normal().parent_path().filename();
  return parse_folder_name(name).has_value() && fs::is_directory(path, ignored);
}

// The checkpoints that a user means by `path`: Error (checkpoint) when there is none.
std::vector<CheckpointInfo> checkpoints_of(const std::string& path, Verify verify) {
  std::vector<CheckpointInfo> list;
  if (is_one_checkpoint(path)) {
    list.push_back(inspect_checkpoint(path, verify));
  } else {
    list = list_checkpoints(checkpoint_root(path), verify);
  }
  if (!list.empty()) return list;
  throw ops::Error(ops::ExitCode::kCheckpoint,
                   fmt::format("{}: no checkpoint here; expected a checkpoint folder (with {}), a "
                               "folder of them, or a run folder",
                               path, kManifestFile));
}

bool is_latest(const CheckpointInfo& info) {
  try {
    const std::string text = read_file(parent_folder(info.path) + "/" + kLatestFile);
    return text.substr(0, text.find(' ')) == fs::path(info.path).filename();
  } catch (const std::system_error&) {
    return false;  // no such file
  }
}

Json to_json(const std::vector<CheckpointInfo>& list) {
  Json rows = Json::array();
  for (const CheckpointInfo& info : list) {
    rows.push_back({{"path", info.path},
                    {"step", info.step},
                    {"bytes", info.bytes},
                    {"ranks", info.ranks},
                    {"latest", is_latest(info)},
                    {"ok", info.problem.empty()},
                    {"problem", info.problem}});
  }
  return rows;
}

// `good` is what a checkpoint without a problem is called.
void print_list(const std::vector<CheckpointInfo>& list, const char* good) {
  size_t width = 4;
  for (const CheckpointInfo& info : list) {
    width = std::max(width, with_commas(info.step).size());
  }
  fmt::print("{:>{}}  {:>9}  {:>5}  {:<8}  {}\n", "step", width, "size", "ranks", "state", "path");
  for (const CheckpointInfo& info : list) {
    fmt::print("{:>{}}  {:>9}  {:>5}  {:<8}  {}{}\n", with_commas(info.step), width,
               bytes_text(info.bytes), info.ranks, info.problem.empty() ? good : "DAMAGED",
               info.path, is_latest(info) ? "  (latest)" : "");
    if (!info.problem.empty()) fmt::print("{:>{}}  {}\n", "", width, info.problem);
  }
}

void run_list(const std::string& path, bool as_json) {
  const std::vector<CheckpointInfo> list = checkpoints_of(path, Verify::kFast);
  if (as_json) {
    print_json(to_json(list));
  } else {
    print_list(list, "complete");
  }
}

void run_verify(const std::string& path, bool as_json, int& exit_code) {
  const std::vector<CheckpointInfo> list = checkpoints_of(path, Verify::kFull);
  if (as_json) {
    print_json(to_json(list));
  } else {
    print_list(list, "verified");
  }
  for (const CheckpointInfo& info : list) {
    if (!info.problem.empty()) exit_code = static_cast<int>(ops::ExitCode::kCheckpoint);
  }
}

// ---- info -----------------------------------------------------------------------------

struct TensorGroup {
  ops::Dtype dtype = ops::Dtype::kF32;
  int64_t n_tensors = 0;
  int64_t n_elements = 0;
};

std::map<std::string, TensorGroup> groups_of(const Manifest& manifest) {
  std::map<std::string, TensorGroup> groups;
  for (const ManifestTensor& tensor : manifest.tensors) {
    TensorGroup& group = groups[tensor.name.substr(0, tensor.name.find('/'))];
    group.dtype = tensor.dtype;
    ++group.n_tensors;
    group.n_elements += tensor.rows * tensor.cols;
  }
  return groups;
}

Json info_json(const std::string& path, const Manifest& manifest, const CheckpointState& state,
               const ModelConfig& model) {
  Json json = {{"path", path}, {"bytes", manifest.bytes()}, {"ranks", manifest.ranks}};
  json["state"] = Json::parse(state_to_json(state));
  json["parameters"] = n_parameters(model);
  for (const auto& [name, group] : groups_of(manifest)) {
    json["groups"][name] = {{"dtype", ops::name(group.dtype)},
                            {"tensors", group.n_tensors},
                            {"elements", group.n_elements}};
  }
  for (const ManifestFile& file : manifest.files) {
    json["files"].push_back({{"name", file.name}, {"bytes", file.bytes}, {"xxh3_128", file.hash}});
  }
  return json;
}

void print_info(const std::string& path, const Manifest& manifest, const CheckpointState& state,
                const ModelConfig& m) {
  const auto text_or_none = [](const std::string& text) { return text.empty() ? "none" : text; };
  fmt::print("{}\n", path);
  fmt::print("  step        {} ({} updates, {} skipped), {} tokens\n", with_commas(state.step),
             with_commas(state.updates), state.skipped_steps, with_commas(state.tokens));
  fmt::print("  model       {} parameters: {} layers, width {}, {} heads of {}, vocabulary {}\n",
             with_commas(n_parameters(m)), m.n_layers, m.width, m.n_heads, m.head_dim,
             with_commas(m.vocab_size));
  for (const auto& [name, group] : groups_of(manifest)) {
    fmt::print("  {:<11} {} tensors, {} elements of {}\n", name, group.n_tensors,
               with_commas(group.n_elements), ops::name(group.dtype));
  }
  fmt::print("  ranks       {}\n", manifest.ranks);
  fmt::print("  tokenizer   {} (SHA-256 {})\n", text_or_none(state.tokenizer),
             text_or_none(state.tokenizer_sha256));
  fmt::print("  data        content hash {}\n", text_or_none(state.data_content_hash));
  fmt::print("  config      hash {}\n", text_or_none(state.config_hash));
  for (const ManifestFile& file : manifest.files) {
    fmt::print("  {:<16} {:>9}  XXH3 {}\n", file.name, bytes_text(file.bytes), file.hash);
  }
}

void run_info(const std::string& given, bool as_json) {
  const std::string path = is_one_checkpoint(given) ? given : resolve_checkpoint(given).path;
  const std::string problem = verify_checkpoint(path, Verify::kFast);
  if (!problem.empty()) throw ops::Error(ops::ExitCode::kCheckpoint, problem);
  const Manifest manifest = read_manifest(path);
  const std::string state_path = path + "/" + kStateFile;
  const CheckpointState state = state_from_json(read_file(state_path), state_path);
  const ModelConfig model = checkpoint_config(state, path).model;
  if (as_json) {
    print_json(info_json(path, manifest, state, model));
  } else {
    print_info(path, manifest, state, model);
  }
}

// ---- other programs' files ------------------------------------------------------------

void run_import(const std::string& file, const std::string& folder) {
  if (!list_checkpoints(checkpoint_root(folder), Verify::kFast).empty()) {
    throw ops::Error(ops::ExitCode::kConfig,
                     fmt::format("{}: already holds checkpoints; choose another folder", folder));
  }
  import_llmc_model(file, folder);
  const std::string path = folder + "/" + step_folder(0);
  const Manifest manifest = read_manifest(path);
  fmt::print("{}  {}\n", path, bytes_text(manifest.bytes()));
}

// ---- the command line -----------------------------------------------------------------

struct Arguments {
  std::string path, output, format;
  bool as_json = false;
};

// A subcommand on one path with --json.
template <class Run>
void add_reading_command(CLI::App& group, const char* name, const char* help, const char* footer,
                         Run run) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = group.add_subcommand(name, help);
  command->add_option("path", arguments->path, "Checkpoint, folder of checkpoints, or run folder")
      ->required();
  command->add_flag("--json", arguments->as_json, "Print JSON");
  command->footer(footer);
  command->callback([arguments, run] { run(arguments->path, arguments->as_json); });
}

void add_import(CLI::App& group) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      group.add_subcommand("import", "Turn another program's model file into a checkpoint");
  command->add_option("file", arguments->path, "Model file")->required();
  command->add_option("--from", arguments->format, "Format: llmc (GPT-2, version 3 or 5)")
      ->required()
      ->check(CLI::IsMember({"llmc"}));
  command->add_option("-o,--output", arguments->output, "Folder for the checkpoint")->required();
  command->footer(
      "The checkpoint has step 0, FP32 weights and empty optimizer state.\n"
      "Example:\n  qstep ckpt import --from llmc gpt2_124M.bin -o gpt2\n"
      "  qstep train gpt2.toml run.resume=gpt2 run.dir=runs/tuned");
  command->callback([arguments] { run_import(arguments->path, arguments->output); });
}

void add_export(CLI::App& group) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      group.add_subcommand("export", "Write a checkpoint's model for another program");
  command
      ->add_option("checkpoint", arguments->path,
                   "Checkpoint, or the newest of a folder of checkpoints or a run folder")
      ->required();
  command->add_option("--to", arguments->format, "Format: llmc (GPT-2, version 3)")
      ->required()
      ->check(CLI::IsMember({"llmc"}));
  command->add_option("-o,--output", arguments->output, "File to write")->required();
  command->footer("Example:\n  qstep ckpt export --to llmc runs/gpt2 -o model.bin");
  command->callback([arguments] {
    const ResolvedCheckpoint found = resolve_checkpoint(arguments->path);
    export_llmc_model(CheckpointReader(found.path, found.verify), arguments->output);
    fmt::print("{}\n", arguments->output);
  });
}

}  // namespace

void add_ckpt_command(CLI::App& app, int& exit_code) {
  CLI::App* group = app.add_subcommand("ckpt", "List, verify, inspect, import, export checkpoints");
  group->require_subcommand(1);
  group->footer("Example:\n  qstep ckpt list runs/default");
  add_reading_command(*group, "list", "List checkpoints by step, with size and completeness",
                      "Example:\n  qstep ckpt list runs/default", run_list);
  add_reading_command(*group, "verify", "Read checkpoints in full and check every checksum",
                      "Ends with code 22 when one is damaged.\n"
                      "Example:\n  qstep ckpt verify runs/default/checkpoints/step-00000100",
                      [&exit_code](const std::string& path, bool as_json) {
                        run_verify(path, as_json, exit_code);
                      });
  add_reading_command(*group, "info", "Say what a checkpoint contains",
                      "Of a run folder, the newest checkpoint.\n"
                      "Example:\n  qstep ckpt info runs/default --json",
                      run_info);
  add_import(*group);
  add_export(*group);
}

}  // namespace qstep::trainer
