#include "parallel/standing.h"

#include <fmt/format.h>

namespace qstep::parallel {

std::string pack(const Standing& standing) {
  Packer to;
  to.number(static_cast<int64_t>(standing.phase)).number(standing.step);
  to.seconds(standing.in_phase_s).seconds(standing.limit_s);
  to.number(std::ssize(standing.collectives));
  for (const LoggedCollective& c : standing.collectives) {
    to.text(c.group).number(static_cast<int64_t>(c.sequence)).text(c.operation).number(c.bytes);
    to.number(static_cast<int64_t>(c.dtype)).number(c.peer).number(c.inside).seconds(c.age_s);
  }
  return to.bytes();
}

Standing unpack_standing(std::string_view bytes) {
  Unpacker from(bytes);
  Standing standing;
  standing.phase = static_cast<Phase>(from.number_below(kPhases));
  standing.step = from.number();
  standing.in_phase_s = from.seconds();
  standing.limit_s = from.seconds();
  standing.collectives.resize(static_cast<size_t>(from.number_below(kMaxBodyBytes)));
  for (LoggedCollective& c : standing.collectives) {
    c.group = from.text();
    c.sequence = static_cast<uint64_t>(from.number());
    c.operation = from.text();
    c.bytes = from.number();
    c.dtype = static_cast<ops::Dtype>(from.number_below(static_cast<int64_t>(ops::Dtype::kU8) + 1));
    c.peer = static_cast<int>(from.number());
    c.inside = from.number() != 0;
    c.age_s = from.seconds();
  }
  return standing;
}

std::string describe(const Standing& standing) {
  return fmt::format("in step {}, in the phase {}", standing.step, name(standing.phase));
}

std::string describe(const LoggedCollective& c) {
  return fmt::format("{} {} of {} ({} bytes, {})", c.operation, c.sequence, c.group, c.bytes,
                     name(c.dtype));
}

}  // namespace qstep::parallel
