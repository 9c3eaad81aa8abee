#include "parallel/verdict.h"

#include <fmt/format.h>

#include "parallel/wire.h"

namespace qstep::parallel {

using ops::ExitCode;

int weight(ExitCode code) {
  if (code == ExitCode::kHang) return 0;
  if (code == ExitCode::kPeerDied) return 1;
  const int number = static_cast<int>(code);
  return number < 20 ? 2 : number / 10 + 1;  // 2x, 3x, 5x
}

std::string describe(int rank, const Peer& peer) {
  return fmt::format("rank {} ({}, pid {})", rank, peer.host, peer.pid);
}

Verdict died(int rank, const Peer& peer, std::string_view place, std::string_view how) {
  return {.rank = rank, .text = fmt::format("{} died ({}) {}", describe(rank, peer), how, place)};
}

Verdict ended_by_error(int rank, ExitCode cause, std::string_view error) {
  return {.code = cause == ExitCode::kHang ? ExitCode::kHang : ExitCode::kPeerDied,
          .cause = cause,
          .rank = rank,
          .text = fmt::format("rank {} ended with code {}: {}", rank, static_cast<int>(cause),
                              error.substr(0, error.find('\n')))};
}

Verdict ended_early(int rank, const Peer& peer, std::string_view place, int other,
                    std::string_view place_of_other) {
  return {.rank = rank,
          .text = fmt::format("{} ended early {}, while rank {} was {}", describe(rank, peer),
                              place, other, place_of_other)};
}

std::string pack(const Verdict& verdict) {
  Packer to;
  to.number(static_cast<int64_t>(verdict.code)).number(static_cast<int64_t>(verdict.cause));
  to.number(verdict.rank).text(verdict.text);
  return to.bytes();
}

Verdict unpack_verdict(std::string_view bytes) {
  Unpacker from(bytes);
  Verdict verdict;
  verdict.code = static_cast<ExitCode>(from.number_below(256));
  verdict.cause = static_cast<ExitCode>(from.number_below(256));
  verdict.rank = static_cast<int>(from.number());
  verdict.text = from.text();
  return verdict;
}

}  // namespace qstep::parallel
