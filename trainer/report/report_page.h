// The files of trainer/report/page/ as they were when this binary was built
// (trainer/report/page/embed.cmake writes the source).
#pragma once

#include <span>
#include <string_view>

namespace qstep::trainer::report {

struct PageFile {
  std::string_view name, text;
};

std::span<const PageFile> page_files();

}  // namespace qstep::trainer::report
