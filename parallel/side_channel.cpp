#include "parallel/side_channel.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>

#include "parallel/collective_log.h"

namespace qstep::parallel {

namespace {

using ops::Error;
using ops::ExitCode;

// Kinds of frames while the ranks meet. Those of the channel's user need not differ.
enum : uint8_t { kHello, kAdmitted, kRoster };

// Per address, and for the first answer: an address of another network may never answer.
constexpr double kTryS = 2;
constexpr double kPauseS = 0.05;

// What comes next on a connection before the deadline; none when it ends or sends garbage.
std::optional<Frame> await_frame(const Socket& socket, FrameReader& reader, double deadline_s) {
  while (true) {
    std::optional<Frame> frame = reader.next();
    if (frame) return frame;
    const double left_s = deadline_s - steady_now_s();
    if (left_s <= 0) return std::nullopt;
    if (!poll_one(socket, POLLIN, left_s)) continue;
    const Received received = receive_all(socket);
    reader.append(received.bytes);
    if (received.closed && received.bytes.empty()) return std::nullopt;
  }
}

void pause() { ::poll(nullptr, 0, static_cast<int>(kPauseS * 1e3)); }

std::string random_text() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}", device(), device());
}

Peer this_process() { return {.host = host_name(), .pid = ::getpid()}; }

}  // namespace

struct SideChannel::Meeting {
  std::vector<std::string> addresses;
  uint16_t port = 0;
  std::string question, answer;  // the nonce: a caller shows one half and expects the other

  std::string packed() const {
    Packer packer;
    packer.text(question).text(answer).number(port).number(std::ssize(addresses));
    for (const std::string& address : addresses) packer.text(address);
    return packer.bytes();
  }
  static Meeting unpacked(std::string_view bytes) {
    Unpacker from(bytes);
    Meeting meeting;
    meeting.question = from.text();
    meeting.answer = from.text();
    meeting.port = static_cast<uint16_t>(from.number());
    meeting.addresses.resize(static_cast<size_t>(from.number_below(1000)));
    for (std::string& address : meeting.addresses) address = from.text();
    return meeting;
  }
  std::string where() const { return fmt::format("{} port {}", fmt::join(addresses, ", "), port); }
};

SideChannel::SideChannel(int rank, int size, const Exchange& exchange, double timeout_s)
    : rank_(rank), peers_(static_cast<size_t>(size)), links_(static_cast<size_t>(size)) {
  peers_[static_cast<size_t>(rank)] = this_process();
  const std::vector<std::string> domains = exchange(loopback_domain());
  if (rank == 0) {
    const bool together = std::all_of(domains.begin(), domains.end(),
                                      [&](const std::string& d) { return d == domains[0]; });
    const Socket listener = listen_on(together ? Reach::kLoopback : Reach::kNetwork);
    const Meeting meeting{
        .addresses = together ? std::vector<std::string>{"127.0.0.1"} : addresses_of_this_host(),
        .port = port_of(listener),
        .question = random_text(),
        .answer = random_text()};
    exchange(meeting.packed());
    accept_all(listener, meeting, timeout_s);
  } else {
    Meeting meeting = Meeting::unpacked(exchange("").at(0));
    const auto mine = static_cast<size_t>(rank);
    if (domains.at(mine) == domains[0]) meeting.addresses = {"127.0.0.1"};
    join(meeting, timeout_s);
  }
}

// Whether this connection is a rank, which then has its place.
bool SideChannel::admit(Link& caller, const Meeting& meeting) {
  const std::optional<Frame> frame = caller.reader.next();
  if (!frame) return false;
  if (frame->kind != kHello) throw WireError{};
  Unpacker hello(frame->body);
  if (hello.text() != meeting.question) throw WireError{};
  const auto rank = static_cast<size_t>(hello.number_below(size()));
  if (rank == 0 || links_[rank].socket) throw WireError{};
  peers_[rank].host = hello.text();
  peers_[rank].pid = hello.number();
  links_[rank] = std::move(caller);
  send(static_cast<int>(rank), kAdmitted, meeting.answer);
  return true;
}

void SideChannel::accept_all(const Socket& listener, const Meeting& meeting, double timeout_s) {
  const double deadline_s = steady_now_s() + timeout_s;
  std::vector<Link> callers;  // who has not said hello yet
  for (int n_joined = 1; n_joined < size();) {
    const double left_s = deadline_s - steady_now_s();
    if (left_s <= 0) {
      std::vector<int> missing;
      for (int r = 1; r < size(); ++r) {
        if (!links_[static_cast<size_t>(r)].socket) missing.push_back(r);
      }
      throw Error(ExitCode::kPeerDied,
                  fmt::format("of {} ranks, {} did not connect to rank 0 ({}) within {:g} s: dead "
                              "at the start, or behind a firewall?",
                              size(), fmt::join(missing, ", "), meeting.where(), timeout_s));
    }
    std::vector<pollfd> polled = {{.fd = listener.fd(), .events = POLLIN, .revents = 0}};
    for (const Link& caller : callers) {
      polled.push_back({.fd = caller.socket.fd(), .events = POLLIN, .revents = 0});
    }
    if (::poll(polled.data(), polled.size(), static_cast<int>(std::ceil(left_s * 1e3))) <= 0)
      continue;

    std::vector<Link> waiting;
    for (size_t i = 0; i < callers.size(); ++i) {
      Link& caller = callers[i];
      bool gone = false;
      if (polled[i + 1].revents != 0) {
        const Received received = receive_all(caller.socket);
        caller.reader.append(received.bytes);
        gone = received.closed;
      }
      try {
        if (admit(caller, meeting)) {
          ++n_joined;
        } else if (!gone) {
          waiting.push_back(std::move(caller));
        }
      } catch (const WireError&) {  // a stranger: out of scope, and closed
      }
    }
    callers = std::move(waiting);
    if (polled[0].revents == 0) continue;
    if (Socket socket = accept_from(listener)) {
      callers.push_back({.socket = std::move(socket)});
    } else {
      pause();  // gone again, or no descriptors left
    }
  }
  Packer roster;
  for (const Peer& peer : peers_) roster.text(peer.host).number(peer.pid);
  for (int r = 1; r < size(); ++r) send(r, kRoster, roster.bytes());
}

void SideChannel::join(const Meeting& meeting, double timeout_s) {
  const double deadline_s = steady_now_s() + timeout_s;
  const Peer& me = peers_[static_cast<size_t>(rank_)];
  Packer hello;
  hello.text(meeting.question).number(rank_).text(me.host).number(me.pid);
  Link& link = links_[0];
  bool admitted = false;
  while (!admitted) {
    for (const std::string& address : meeting.addresses) {
      const double try_until_s = std::min(deadline_s, steady_now_s() + kTryS);
      link = {.socket = connect_to(address, meeting.port, try_until_s - steady_now_s())};
      if (!link.socket) continue;
      send(0, kHello, hello.bytes());
      try {
        const std::optional<Frame> answer = await_frame(link.socket, link.reader, try_until_s);
        admitted = answer && answer->kind == kAdmitted && answer->body == meeting.answer;
      } catch (const WireError&) {  // somebody else answers there
      }
      if (admitted) break;
    }
    if (!admitted && steady_now_s() + kPauseS > deadline_s) {
      throw Error(ExitCode::kPeerDied,
                  fmt::format("rank {} could not connect to rank 0 ({}) within {:g} s: dead at the "
                              "start, or behind a firewall?",
                              rank_, meeting.where(), timeout_s));
    }
    if (!admitted) pause();
  }
  // The others may come as late as they are allowed to, and rank 0 counts from a later start.
  const std::optional<Frame> frame = await_frame(link.socket, link.reader, deadline_s + timeout_s);
  if (!frame || frame->kind != kRoster) {
    throw Error(ExitCode::kPeerDied,
                "rank 0 ended while the ranks were connecting: see its own message");
  }
  Unpacker roster(frame->body);
  for (Peer& peer : peers_) {
    peer.host = roster.text();
    peer.pid = roster.number();
  }
}

void SideChannel::send(int to, uint8_t kind, std::string_view body) {
  Link& link = links_.at(static_cast<size_t>(to));
  if (!link.socket) return;
  link.unsent += to_bytes(kind, body);
  push(link);
}

void SideChannel::push(Link& link) { link.unsent.erase(0, send_some(link.socket, link.unsent)); }

std::vector<pollfd> SideChannel::poll_set() const {
  std::vector<pollfd> set;
  for (const Link& link : links_) {
    const short events = link.unsent.empty() ? POLLIN : POLLIN | POLLOUT;
    set.push_back({.fd = link.socket.fd(), .events = events, .revents = 0});  // -1 is passed over
  }
  return set;
}

void SideChannel::receive_from(int rank, std::vector<Event>& events) {
  Link& link = links_[static_cast<size_t>(rank)];
  Received received = receive_all(link.socket);
  link.reader.append(received.bytes);
  try {
    while (std::optional<Frame> frame = link.reader.next()) {
      events.push_back({.rank = rank, .frame = std::move(*frame)});
    }
  } catch (const WireError&) {
    received.closed = true;
    received.how = "its messages cannot be read";
  }
  if (!received.closed) return;
  events.push_back({.rank = rank, .closed = true, .how = std::move(received.how)});
  link = {};
}

std::vector<SideChannel::Event> SideChannel::receive(std::span<const pollfd> polled) {
  std::vector<Event> events;
  for (size_t r = 0; r < polled.size(); ++r) {
    if (polled[r].revents == 0 || !links_[r].socket) continue;
    if (polled[r].revents & POLLOUT) push(links_[r]);
    if (polled[r].revents & ~POLLOUT) receive_from(static_cast<int>(r), events);
  }
  return events;
}

}  // namespace qstep::parallel
