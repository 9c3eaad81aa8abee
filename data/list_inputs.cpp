#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fnmatch.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "data/error.h"
#include "data/text_source.h"

namespace qstep::data {
namespace {

namespace fs = std::filesystem;

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

bool matches(const fs::path& path, const fs::path& folder, const std::vector<std::string>& globs) {
  return std::any_of(globs.begin(), globs.end(), [&](const std::string& glob) {
    const bool by_path = glob.find('/') != std::string::npos;
    const std::string name = by_path ? path.lexically_relative(folder) : path.filename();
    return ::fnmatch(glob.c_str(), name.c_str(), 0) == 0;
  });
}

std::vector<std::string> search(const std::string& folder, const std::vector<std::string>& globs) {
  std::vector<std::string> found;
  for (auto it = fs::recursive_directory_iterator(folder); it != fs::end(it); ++it) {
    if (is_hidden(it->path())) {
      if (it->is_directory()) it.disable_recursion_pending();
      continue;
    }
    std::error_code dangling_link;
    if (it->is_regular_file(dangling_link) && matches(it->path(), folder, globs)) {
      found.push_back(it->path().string());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

std::vector<TextInput> list_inputs(const std::vector<std::string>& inputs,
                                   const std::vector<std::string>& globs) {
  std::vector<TextInput> list;
  for (const std::string& input : inputs) {
    try {
      const fs::file_status status = fs::status(input);
      if (fs::is_regular_file(status)) {
        list.push_back({input, fs::file_size(input)});
      } else if (fs::is_directory(status)) {
        const std::vector<std::string> found = search(input, globs);
        if (found.empty()) {
          throw Error(fmt::format("{}: no file in this folder matches {}; name others with --glob",
                                  input, fmt::join(globs, " ")));
        }
        for (const std::string& path : found) list.push_back({path, fs::file_size(path)});
      } else if (!fs::exists(status)) {
        throw Error(fmt::format("{}: no such file or folder", input));
      } else {
        throw Error(
            fmt::format("{}: expected a file or folder; text is read twice, so pipes and "
                        "devices will not do",
                        input));
      }
    } catch (const fs::filesystem_error& error) {
      throw Error(fmt::format("{}: {}", input, error.what()));
    }
  }
  return list;
}

}  // namespace qstep::data
