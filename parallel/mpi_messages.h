// Messages between the ranks of a group that are on their way together. Only the communication
// thread (mpi_thread.h) may use them.
#pragma once

#define OMPI_SKIP_MPICXX 1  // the old C++ bindings of Open MPI and MPICH
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qstep::parallel {

// Throws an Error with MPI's own text unless `code` is a success.
void check_mpi(int code, std::string_view what);

// Who a group's ranks are, and what keeps its messages apart from those of other groups.
struct MpiGroup {
  std::string name;
  std::vector<int> members;  // rank in the world of the group's ranks 0, 1, ...
  int rank = 0;              // in the group
  int id = 0;                // the same on all members; different for groups that share a rank

  int size() const { return static_cast<int>(members.size()); }
};

// Groups that one process can be in: 2^11 of them and 2^4 kinds of messages fill the 15 bits of a
// tag that MPI guarantees.
inline constexpr int kMaxGroups = 1 << 11;
inline constexpr int kMaxKinds = 1 << 4;

// What a group's `kind` of message is called on its way: ranks that are not in the same collective
// do not take each other's messages for their own.
inline int message_tag(const MpiGroup& group, int kind) { return group.id * kMaxKinds + kind; }

struct Traffic {
  std::atomic<int64_t> bytes_sent{0};
  std::atomic<int64_t> messages_sent{0};
};

class Messages {
 public:
  explicit Messages(Traffic& traffic) : traffic_(traffic) {}
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;

  // `bytes` may be more than one MPI message can hold, and 0. The memory belongs to the message
  // until done().
  void send(const MpiGroup& group, int to, int kind, const void* data, int64_t bytes);
  void receive(const MpiGroup& group, int from, int kind, void* data, int64_t bytes);

  // Lets MPI work, and returns how many messages that completed. Throws where MPI found an error,
  // and where a message is not of the size that was expected.
  int test();
  bool done() const { return n_left_ == 0; }

 private:
  void add(MPI_Request request, int64_t bytes_expected);

  Traffic& traffic_;
  int n_left_ = 0;
  // One element per message; they keep their capacity.
  std::vector<MPI_Request> requests_;
  std::vector<int64_t> expected_bytes_;  // of a receive; -1 for a send
  std::vector<int> indices_;             // scratch of test()
  std::vector<MPI_Status> statuses_;     // scratch of test()
};

}  // namespace qstep::parallel
