// A way to talk that works while collectives do not: a TCP star to rank 0, beside what carries the
// collectives and never over it.
//
// Rank 0 listens on a port that the system picks, on the loopback address when all ranks share it;
// address and port reach the others with a nonce. Who lacks the nonce does not get in, which guards
// against accidents, not against attacks, and once all are connected the port is closed. The kernel
// reports the end of a process by closing its connection; a host that falls silent counts as closed
// after 20 s.
#pragma once

#include <poll.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/socket.h"
#include "parallel/verdict.h"
#include "parallel/wire.h"

namespace qstep::parallel {

// Collective: the texts of all ranks, by rank. Used before the channel is there.
using Exchange = std::function<std::vector<std::string>(std::string_view text)>;

// Not for several threads at once.
class SideChannel {
 public:
  // A message of another rank, or the end of its connection.
  struct Event {
    int rank = 0;
    bool closed = false;
    Frame frame = {};      // unless closed
    std::string how = {};  // when closed: "connection closed", or the system's error
  };

  // All ranks together. Throws Error (peer died) when not all are connected after `timeout_s`,
  // and says which are not.
  SideChannel(int rank, int size, const Exchange& exchange, double timeout_s);

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(peers_.size()); }
  const std::vector<Peer>& peers() const { return peers_; }

  // Rank 0 talks to all, the others to rank 0. Never blocks: what the system does not take now
  // goes with a later receive(). Does nothing when the connection has ended.
  void send(int to, uint8_t kind, std::string_view body);

  // What to poll for, one entry per rank; and afterwards: what has come, each rank's messages in
  // the order of its sends. The end of a connection is told once, after the last message before it.
  std::vector<pollfd> poll_set() const;
  std::vector<Event> receive(std::span<const pollfd> polled);

 private:
  // A connection, or none: on ranks other than 0 only the one to rank 0 exists.
  struct Link {
    Socket socket = {};
    FrameReader reader = {};
    std::string unsent = {};
  };

  struct Meeting;  // where rank 0 is, and how to get in
  void accept_all(const Socket& listener, const Meeting& meeting, double timeout_s);
  bool admit(Link& caller, const Meeting& meeting);
  void join(const Meeting& meeting, double timeout_s);
  void push(Link& link);
  void receive_from(int rank, std::vector<Event>& events);

  int rank_;
  std::vector<Peer> peers_;
  std::vector<Link> links_;  // by rank
};

}  // namespace qstep::parallel
