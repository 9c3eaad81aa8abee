#include "trainer/checkpoint/checkpoint_folders.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <sstream>
#include <system_error>

#include "trainer/base/agreement.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_manifest.h"

namespace qstep::trainer {
namespace fs = std::filesystem;
namespace {

struct Found {
  std::string path;
  FolderName name;
};

// Every folder of ours in `root`, by name.
std::vector<Found> scan(const std::string& root) {
  std::vector<Found> found;
  std::error_code code;
  for (fs::directory_iterator it(root, code), end; !code && it != end; it.increment(code)) {
    const std::string file_name = it->path().filename();
    const auto name = parse_folder_name(file_name);
    if (name) found.push_back({root + "/" + file_name, *name});
  }
  if (code && code != std::errc::no_such_file_or_directory) {
    throw ops::Error(ops::ExitCode::kCheckpoint,
                     fmt::format("{}: cannot list the folder: {}", root, code.message()));
  }
  std::sort(found.begin(), found.end(),
            [](const Found& a, const Found& b) { return a.path < b.path; });
  return found;
}

// The folder that holds each step, oldest step first. A checkpoint that was moved aside counts as
// long as its replacement has not arrived.
std::vector<Found> checkpoints_in(const std::string& root) {
  std::vector<Found> kept;
  for (Found& f : scan(root)) {
    if (f.name.kind != FolderKind::kCheckpoint && f.name.kind != FolderKind::kOld) continue;
    kept.push_back(std::move(f));
  }
  std::stable_sort(kept.begin(), kept.end(), [](const Found& a, const Found& b) {
    return a.name.step != b.name.step ? a.name.step < b.name.step : a.name.kind < b.name.kind;
  });
  const auto same_step = [](const Found& a, const Found& b) { return a.name.step == b.name.step; };
  kept.erase(std::unique(kept.begin(), kept.end(), same_step), kept.end());
  return kept;
}

CheckpointInfo inspect(const std::string& path, const FolderName& name, Verify verify) {
  CheckpointInfo info{.path = path, .step = name.step, .bytes = 0, .problem = ""};
  try {
    const Manifest manifest = read_manifest(path);
    info.bytes = manifest.bytes();
    info.ranks = manifest.ranks;
    if (manifest.step != name.step) {
      info.problem = fmt::format("{}: the folder's name says step {}, its manifest {}", path,
                                 name.step, manifest.step);
    } else {
      info.problem = manifest_problem(manifest, path, verify);
    }
  } catch (const ops::Error& error) {
    info.problem = error.what();
  }
  return info;
}

// All ranks get the problem; the rest is known to rank 0, which looks at what is cheap.
CheckpointInfo inspect_together(parallel::Comm& comm, const std::string& path, Verify verify) {
  CheckpointInfo info;
  info.problem = text_of_first_rank(comm, [&] {
    info = inspect_checkpoint(path, Verify::kFast);
    return info.problem;
  });
  if (!info.problem.empty() || verify == Verify::kFast) return info;
  Manifest manifest;
  agree(comm, [&] { manifest = read_manifest(path); });
  info.problem = damage_problem(comm, manifest, path);
  return info;
}

// Of checkpoints_in, as rank 0 sees the folder.
std::vector<std::string> names_of_first_rank(parallel::Comm& comm, const std::string& root) {
  std::istringstream lines(text_of_first_rank(comm, [&] {
    std::string text;
    for (const Found& f : checkpoints_in(root)) {
      text += fs::path(f.path).filename().string() + "\n";
    }
    return text;
  }));
  std::vector<std::string> names;
  for (std::string line; std::getline(lines, line);) names.push_back(line);
  return names;
}

}  // namespace

std::string step_folder(int64_t step) { return fmt::format("step-{:08}", step); }

std::optional<FolderName> parse_folder_name(std::string_view name) {
  constexpr std::string_view kPrefix = "step-";
  constexpr size_t kMinDigits = 8;
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  FolderName result;
  const auto [end, code] = std::from_chars(name.data(), name.data() + name.size(), result.step);
  const auto digits = static_cast<size_t>(end - name.data());
  if (code != std::errc{} || digits < kMinDigits || result.step < 0) return std::nullopt;
  name.remove_prefix(digits);
  if (name.empty()) return result;
  for (const auto& [mark, kind] : {std::pair{kTemporaryMark, FolderKind::kTemporary},
                                   {kOldMark, FolderKind::kOld},
                                   {kDeletedMark, FolderKind::kDeleted}}) {
    // "step-1.old-ab.del-cd" is the deletion: the last mark counts.
    const size_t at = name.rfind('.');
    if (at != std::string_view::npos && name.substr(at).starts_with(mark)) {
      result.kind = kind;
      return result;
    }
  }
  return std::nullopt;
}

std::vector<CheckpointInfo> list_checkpoints(const std::string& root, Verify verify) {
  std::vector<CheckpointInfo> list;
  for (const Found& f : checkpoints_in(root)) list.push_back(inspect(f.path, f.name, verify));
  return list;
}

CheckpointInfo inspect_checkpoint(const std::string& path, Verify verify) {
  // With a slash at the end or without.
  const fs::path folder = (fs::path(path) / "").lexically_normal().parent_path();
  if (const auto name = parse_folder_name(folder.filename().string())) {
    return inspect(folder, *name, verify);
  }
  try {  // under a name of the user's own: its manifest says the step
    return inspect(folder, {.step = read_manifest(folder).step}, verify);
  } catch (const ops::Error& error) {
    return {.path = folder, .step = 0, .bytes = 0, .problem = error.what()};
  }
}

std::string verify_checkpoint(const std::string& path, Verify verify) {
  return inspect_checkpoint(path, verify).problem;
}

std::string verify_checkpoint(parallel::Comm& comm, const std::string& path, Verify verify) {
  return inspect_together(comm, path, verify).problem;
}

std::optional<std::string> newest_checkpoint(
    const std::string& root, const std::function<void(const CheckpointInfo&)>& on_fallback) {
  return newest_checkpoint(*parallel::make_single(), root, on_fallback);
}

std::optional<std::string> newest_checkpoint(
    parallel::Comm& comm, const std::string& root,
    const std::function<void(const CheckpointInfo&)>& on_fallback) {
  const std::vector<std::string> names = names_of_first_rank(comm, root);
  std::string problems;
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    const std::string path = root + "/" + *name;
    const CheckpointInfo info = inspect_together(comm, path, Verify::kFull);
    if (info.problem.empty()) return path;
    problems += "\n  " + info.problem;
    on_first_rank(comm, [&] {
      if (on_fallback) on_fallback(info);
    });
  }
  if (names.empty()) return std::nullopt;
  throw AgreedError(
      ops::ExitCode::kCheckpoint,
      fmt::format(
          "{}: none of the {} checkpoints is usable; restore one from a copy, or start again "
          "in another run.dir:{}",
          root, names.size(), problems));
}

std::string checkpoint_root(const std::string& path) {
  const std::string inner = (fs::path(path) / "checkpoints").string();
  std::error_code ignored;
  return fs::is_directory(inner, ignored) ? inner : path;
}

void remove_stale_temporaries(const std::string& root, const StepHook& before_step) {
  const CheckpointFiles files(before_step);
  for (const Found& f : scan(root)) {
    if (f.name.kind == FolderKind::kCheckpoint) continue;
    const std::string home = root + "/" + step_folder(f.name.step);
    if (f.name.kind == FolderKind::kOld && !fs::exists(home)) {
      files.rename(f.path, home);
      files.sync_folder(root);
    } else {
      files.remove_tree(f.path);
    }
  }
  std::error_code code;
  for (fs::directory_iterator it(root, code), end; !code && it != end; it.increment(code)) {
    const std::string name = it->path().filename();
    if (name.starts_with(std::string(kLatestFile) + kTemporaryMark)) {
      files.remove_tree(root + "/" + name);
    }
  }
}

void remove_stale_temporaries(parallel::Comm& comm, const std::string& root,
                              const StepHook& before_step) {
  on_first_rank(comm, [&] { remove_stale_temporaries(root, before_step); });
}

}  // namespace qstep::trainer
