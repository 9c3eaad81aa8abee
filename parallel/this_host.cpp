// Names and addresses of the machine at hand.
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <memory>

#include "parallel/socket.h"

namespace qstep::parallel {

namespace {

// Empty for what other hosts cannot use.
std::string numeric(const sockaddr& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address.sa_family == AF_INET) {
    const auto& ip4 = reinterpret_cast<const sockaddr_in&>(address).sin_addr;
    if ((ntohl(ip4.s_addr) >> 16) == 0xa9fe) return {};  // 169.254.0.0/16: link-local
    ::inet_ntop(AF_INET, &ip4, text.data(), text.size());
  } else if (address.sa_family == AF_INET6) {
    const auto& ip6 = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
    if (IN6_IS_ADDR_LINKLOCAL(&ip6)) return {};
    ::inet_ntop(AF_INET6, &ip6, text.data(), text.size());
  }
  return text.data();
}

}  // namespace

std::vector<std::string> addresses_of_this_host() {
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) return {};
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(first, ::freeifaddrs);
  std::vector<std::string> ip4, ip6;
  for (const ifaddrs* i = first; i != nullptr; i = i->ifa_next) {
    if (i->ifa_addr == nullptr || !(i->ifa_flags & IFF_UP) || (i->ifa_flags & IFF_LOOPBACK))
      continue;
    const std::string text = numeric(*i->ifa_addr);
    if (!text.empty()) (i->ifa_addr->sa_family == AF_INET ? ip4 : ip6).push_back(text);
  }
  ip4.insert(ip4.end(), ip6.begin(), ip6.end());
  return ip4;
}

std::string loopback_domain() {
  // The running kernel and the network namespace; a container may have the latter to itself.
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  std::error_code none;
  const auto space = std::filesystem::read_symlink("/proc/self/ns/net", none);
  return host_name() + " " + boot + " " + space.string();
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "unknown";
  return name.data();
}

}  // namespace qstep::parallel
