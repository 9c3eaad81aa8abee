// What the system and the data room report while something is written, as Error (disk).
#pragma once

#include <fmt/format.h>

#include <string>
#include <system_error>

#include "data/error.h"
#include "ops/error.h"
#include "trainer/base/durable_files.h"

namespace qstep::trainer {

// f(), which writes `path` or into it.
template <class F>
auto with_disk_errors(const std::string& path, F&& f) {
  try {
    return f();
  } catch (const data::Error& error) {
    throw ops::Error(ops::ExitCode::kDisk, error.what());
  } catch (const std::system_error& error) {
    throw ops::Error(ops::ExitCode::kDisk, fmt::format("{}: {}{}", path, error.what(),
                                                       disk_advice(error.code().value())));
  }
}

}  // namespace qstep::trainer
