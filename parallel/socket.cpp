#include "parallel/socket.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <memory>
#include <system_error>

#include "ops/error.h"

namespace qstep::parallel {

namespace {

// A host that falls silent breaks its connections after this time: with nothing under way the
// probes of keep-alive count, otherwise the time without an acknowledgement.
constexpr int kSilenceS = 20;
constexpr int kProbeEveryS = 5;

constexpr int kType = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;

void set_option(const Socket& socket, int level, int option, int value) {
  ops::check(::setsockopt(socket.fd(), level, option, &value, sizeof value) == 0,
             "side channel: setsockopt failed");
}

void tune(const Socket& socket) {
  set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, kProbeEveryS);
  set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, kProbeEveryS);
  set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, kSilenceS / kProbeEveryS - 1);
  set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, kSilenceS * 1000);
}

bool listens(const Socket& socket, const sockaddr* address, socklen_t size) {
  return socket && ::bind(socket.fd(), address, size) == 0 && ::listen(socket.fd(), SOMAXCONN) == 0;
}

// IPv6 with IPv4 in it, or IPv4 alone where the system has no IPv6.
Socket listen_on_all() {
  Socket both(::socket(AF_INET6, kType, 0));
  if (both) {
    const int no = 0;
    sockaddr_in6 any6{};
    any6.sin6_family = AF_INET6;
    if (::setsockopt(both.fd(), IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no) == 0 &&
        listens(both, reinterpret_cast<const sockaddr*>(&any6), sizeof any6)) {
      return both;
    }
  }
  Socket only4(::socket(AF_INET, kType, 0));
  sockaddr_in any4{};
  any4.sin_family = AF_INET;
  ops::check(listens(only4, reinterpret_cast<const sockaddr*>(&any4), sizeof any4),
             "side channel: cannot listen on a port");
  return only4;
}

Socket listen_on_loopback() {
  Socket socket(::socket(AF_INET, kType, 0));
  sockaddr_in loopback{};
  loopback.sin_family = AF_INET;
  loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ops::check(listens(socket, reinterpret_cast<const sockaddr*>(&loopback), sizeof loopback),
             "side channel: cannot listen on a loopback port");
  return socket;
}

}  // namespace

Socket::~Socket() {
  if (fd_ >= 0) ::close(fd_);
}

Socket listen_on(Reach reach) {
  return reach == Reach::kLoopback ? listen_on_loopback() : listen_on_all();
}

uint16_t port_of(const Socket& listener) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  ops::check(::getsockname(listener.fd(), reinterpret_cast<sockaddr*>(&address), &size) == 0,
             "side channel: getsockname failed");
  return ntohs(address.ss_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                   : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

Socket accept_from(const Socket& listener) {
  // A caller that has gone again is nobody, like an interrupted call: the next poll tells of
  // others.
  Socket socket(::accept4(listener.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (socket) tune(socket);
  return socket;
}

Socket connect_to(const std::string& address, uint16_t port, double timeout_s) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return {};
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, ::freeaddrinfo);

  Socket socket(::socket(found->ai_family, kType, 0));
  if (!socket) return {};
  // A connect() that a signal interrupts goes on by itself, too.
  if (::connect(socket.fd(), found->ai_addr, found->ai_addrlen) != 0 && errno != EINPROGRESS &&
      errno != EINTR) {
    return {};
  }
  if (!poll_one(socket, POLLOUT, timeout_s)) return {};
  int error = 0;
  socklen_t size = sizeof error;
  if (::getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) return {};
  tune(socket);
  return socket;
}

Received receive_all(const Socket& socket) {
  Received received;
  std::array<char, 4096> piece;
  while (true) {
    const ssize_t n = ::recv(socket.fd(), piece.data(), piece.size(), 0);
    if (n > 0) {
      received.bytes.append(piece.data(), static_cast<size_t>(n));
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
      // A process that ends with something unread resets the connection: that, too, is an end.
      const int error = n == 0 || errno == ECONNRESET ? 0 : errno;
      received.closed = true;
      received.how = error == 0 ? "connection closed"
                                : "connection lost: " + std::generic_category().message(error);
      return received;
    } else if (errno == EAGAIN) {
      return received;
    }
  }
}

size_t send_some(const Socket& socket, std::string_view bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t n =
        ::send(socket.fd(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      sent += static_cast<size_t>(n);
    } else if (errno == EAGAIN) {
      return sent;
    } else if (errno != EINTR) {
      return bytes.size();
    }
  }
  return sent;
}

bool poll_one(const Socket& socket, short events, double timeout_s) {
  pollfd polled{.fd = socket.fd(), .events = events, .revents = 0};
  const int timeout_ms = static_cast<int>(std::ceil(std::max(0.0, timeout_s) * 1e3));
  return ::poll(&polled, 1, timeout_ms) > 0;
}

}  // namespace qstep::parallel
