#include "parallel/mpi_messages.h"

#include <algorithm>
#include <array>

#include "ops/error.h"

namespace qstep::parallel {

namespace {

// Longest single message: far below the 2^31 - 1 that an MPI count can say, and long enough that
// one more costs nothing.
constexpr int64_t kMaxMessageBytes = int64_t{64} << 20;

// f(offset, bytes) for the messages that `bytes` are cut into. No bytes are one message too: a
// barrier is made of them.
template <class F>
void for_each_message(int64_t bytes, F&& f) {
  int64_t offset = 0;
  do {
    const int64_t size = std::min(kMaxMessageBytes, bytes - offset);
    f(offset, static_cast<int>(size));
    offset += size;
  } while (offset < bytes);
}

std::string mpi_text(int code) {
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  return {text.data(), static_cast<size_t>(length)};
}

[[noreturn]] void sizes_differ(int64_t expected, int64_t found) {
  throw ops::Error(ops::ExitCode::kInternal,
                   fmt::format("the ranks' collectives differ: a message of {} bytes was expected, "
                               "one of {} came",
                               expected, found));
}

}  // namespace

void check_mpi(int code, std::string_view what) {
  if (code == MPI_SUCCESS) return;
  int error_class = MPI_ERR_OTHER;
  MPI_Error_class(code, &error_class);
  if (error_class == MPI_ERR_TRUNCATE) {
    throw ops::Error(ops::ExitCode::kInternal,
                     fmt::format("the ranks' collectives differ: {} got a longer message than it "
                                 "expected (MPI: {})",
                                 what, mpi_text(code)));
  }
  throw ops::Error(ops::ExitCode::kPeerDied,
                   fmt::format("MPI cannot reach another rank in {}: {}. A rank or its machine may "
                               "have died: see their logs, then start the same command again",
                               what, mpi_text(code)));
}

void Messages::send(const MpiGroup& group, int to, int kind, const void* data, int64_t bytes) {
  const int rank = group.members[static_cast<size_t>(to)];
  const char* const first = static_cast<const char*>(data);
  for_each_message(bytes, [&](int64_t offset, int size) {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Isend(first + offset, size, MPI_BYTE, rank, message_tag(group, kind),
                        MPI_COMM_WORLD, &request),
              "MPI_Isend");
    add(request, -1);
    traffic_.messages_sent += 1;
    traffic_.bytes_sent += size;
  });
}

void Messages::receive(const MpiGroup& group, int from, int kind, void* data, int64_t bytes) {
  const int rank = group.members[static_cast<size_t>(from)];
  char* const first = static_cast<char*>(data);
  for_each_message(bytes, [&](int64_t offset, int size) {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Irecv(first + offset, size, MPI_BYTE, rank, message_tag(group, kind),
                        MPI_COMM_WORLD, &request),
              "MPI_Irecv");
    add(request, size);
  });
}

void Messages::add(MPI_Request request, int64_t expected_bytes) {
  if (done()) {
    requests_.clear();
    expected_bytes_.clear();
  }
  requests_.push_back(request);
  expected_bytes_.push_back(expected_bytes);
  ++n_left_;
}

int Messages::test() {
  if (done()) return 0;
  indices_.resize(requests_.size());
  statuses_.resize(requests_.size());
  int n_done = 0;
  const int code = MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &n_done,
                                indices_.data(), statuses_.data());
  if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) check_mpi(code, "MPI_Testsome");
  ops::check(n_done != MPI_UNDEFINED, "messages: none are under way");
  for (size_t i = 0; i < static_cast<size_t>(n_done); ++i) {
    if (code == MPI_ERR_IN_STATUS) check_mpi(statuses_[i].MPI_ERROR, "MPI_Testsome");
    const int64_t expected = expected_bytes_[static_cast<size_t>(indices_[i])];
    if (expected < 0) continue;
    int found = 0;
    check_mpi(MPI_Get_count(&statuses_[i], MPI_BYTE, &found), "MPI_Get_count");
    if (found != expected) sizes_differ(expected, found);
  }
  n_left_ -= n_done;
  return n_done;
}

}  // namespace qstep::parallel
