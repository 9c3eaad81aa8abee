// A file that appears under its name only when it is complete.
#pragma once

#include <string>

namespace qstep::data {

// Name in the same folder under which a file is written before it is published.
std::string temporary_name(const std::string& path);

// fsync, rename over `path`, fsync of the folder. Throws Error of kDisk naming the failing step.
void publish(const std::string& temporary, const std::string& path);

}  // namespace qstep::data
