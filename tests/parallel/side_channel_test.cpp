// Every rank is a thread here; watchdog_test has processes.
#include "parallel/side_channel.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <barrier>
#include <chrono>
#include <functional>
#include <set>
#include <thread>

#include "parallel/collective_log.h"

namespace qstep::parallel {
namespace {

using ops::Error;
using ops::ExitCode;

constexpr double kTimeoutS = 30;

// Texts of threads to each other.
class Meeting {
 public:
  explicit Meeting(int size) : texts_(static_cast<size_t>(size)), barrier_(size) {}
  std::vector<std::string> exchange(int rank, std::string_view text) {
    texts_[static_cast<size_t>(rank)] = text;
    barrier_.arrive_and_wait();
    std::vector<std::string> all = texts_;
    barrier_.arrive_and_wait();
    return all;
  }
  Exchange of(int rank) {
    return [this, rank](std::string_view text) { return exchange(rank, text); };
  }

 private:
  std::vector<std::string> texts_;
  std::barrier<> barrier_;
};

void run_ranks(int size, const std::function<void(int)>& f) {
  std::vector<std::jthread> threads;
  for (int r = 0; r < size; ++r) threads.emplace_back([&f, r] { f(r); });
}

void with_channels(int size, const std::function<void(SideChannel&)>& f) {
  Meeting meeting(size);
  run_ranks(size, [&](int rank) {
    SideChannel channel(rank, size, meeting.of(rank), kTimeoutS);
    f(channel);
  });
}

// Until `n` events are there, or too much time has passed.
std::vector<SideChannel::Event> receive(SideChannel& channel, size_t n) {
  std::vector<SideChannel::Event> all;
  for (const double start_s = steady_now_s(); all.size() < n;) {
    if (steady_now_s() > start_s + kTimeoutS) break;
    std::vector<pollfd> polled = channel.poll_set();
    ::poll(polled.data(), polled.size(), 100);
    for (SideChannel::Event& event : channel.receive(polled)) all.push_back(std::move(event));
  }
  return all;
}

TEST(SideChannel, MessagesGoToRank0AndBackInOrder) {
  with_channels(4, [](SideChannel& channel) {
    const std::string long_text(kMaxBodyBytes, 'x');  // more than a socket takes at once
    if (channel.rank() != 0) {
      channel.send(0, 5, std::to_string(channel.rank()));
      channel.send(0, 6, long_text);
      channel.send(0, 7, "");
      const auto events = receive(channel, 1);  // and all of the long text leaves
      ASSERT_EQ(events.size(), 1u);
      EXPECT_EQ(events[0].frame.body, "for " + std::to_string(channel.rank()));
      return;
    }
    std::vector<std::vector<Frame>> frames(4);
    for (SideChannel::Event& event : receive(channel, 9)) {
      EXPECT_FALSE(event.closed) << event.how;
      frames[static_cast<size_t>(event.rank)].push_back(std::move(event.frame));
    }
    for (int r = 1; r < 4; ++r) {
      const auto& from = frames[static_cast<size_t>(r)];
      ASSERT_EQ(from.size(), 3u);
      EXPECT_EQ(from[0].kind, 5);
      EXPECT_EQ(from[0].body, std::to_string(r));
      EXPECT_TRUE(from[1].body == long_text);
      EXPECT_EQ(from[2].kind, 7);
      EXPECT_EQ(from[2].body, "");
      channel.send(r, 8, "for " + std::to_string(r));
    }
    for (const auto& event : receive(channel, 3)) EXPECT_TRUE(event.closed);
  });
}

TEST(SideChannel, AllKnowWhereAllAre) {
  with_channels(3, [](SideChannel& channel) {
    ASSERT_EQ(channel.size(), 3);
    for (const Peer& peer : channel.peers()) {
      EXPECT_EQ(peer.host, host_name());
      EXPECT_EQ(peer.pid, ::getpid());
    }
  });
}

TEST(SideChannel, AnEndComesOnceAndAfterTheLastMessage) {
  Meeting meeting(3);
  run_ranks(3, [&](int rank) {
    auto channel = std::make_unique<SideChannel>(rank, 3, meeting.of(rank), kTimeoutS);
    if (rank == 1) {
      channel->send(0, 1, "last words");
      channel.reset();
    }
    meeting.exchange(rank, "");  // rank 2 outlives what rank 0 looks at
    if (rank == 0) {
      const auto events = receive(*channel, 2);
      ASSERT_EQ(events.size(), 2u);
      EXPECT_EQ(events[0].rank, 1);
      EXPECT_EQ(events[0].frame.body, "last words");
      EXPECT_EQ(events[1].rank, 1);
      EXPECT_TRUE(events[1].closed);
      EXPECT_EQ(events[1].how, "connection closed");
      channel->send(1, 1, "to nobody");  // no error, no SIGPIPE
      std::vector<pollfd> polled = channel->poll_set();
      EXPECT_EQ(polled[1].fd, -1);
      EXPECT_TRUE(channel->receive(polled).empty());
    }
    meeting.exchange(rank, "");
  });
}

TEST(SideChannel, TheEndOfRank0ReachesAll) {
  Meeting meeting(3);
  run_ranks(3, [&](int rank) {
    auto channel = std::make_unique<SideChannel>(rank, 3, meeting.of(rank), kTimeoutS);
    if (rank == 0) return;
    channel->send(0, 1, "unread, which resets the connection");
    const auto events = receive(*channel, 1);
    ASSERT_EQ(events.size(), 1u);
    EXPECT_TRUE(events[0].closed);
    EXPECT_EQ(events[0].how, "connection closed");
  });
}

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kPeerDied);
    return error.what();
  }
  return "no error";
}

TEST(SideChannel, RanksThatDoNotComeAreNamed) {
  Meeting meeting(4);
  run_ranks(4, [&](int rank) {
    if (rank == 1 || rank == 3) {  // take part in the exchange only
      meeting.exchange(rank, loopback_domain());
      meeting.exchange(rank, "");
      return;
    }
    const std::string text = error_of(
        [&] { SideChannel channel(rank, 4, meeting.of(rank), rank == 0 ? 0.5 : kTimeoutS); });
    if (rank == 0) {
      EXPECT_PRED_FORMAT2(testing::IsSubstring,
                          "of 4 ranks, 1, 3 did not connect to rank 0 (127.0.0.1", text);
    } else {
      EXPECT_EQ(text, "rank 0 ended while the ranks were connecting: see its own message");
    }
  });
}

TEST(SideChannel, ARank0ThatIsNotThereIsNamed) {
  Meeting meeting(2);
  run_ranks(2, [&](int rank) {
    if (rank == 0) {
      meeting.exchange(rank, loopback_domain());
      // A port on which nobody listens any more.
      const uint16_t port = port_of(listen_on(Reach::kLoopback));
      Packer packer;
      packer.text("q").text("a").number(port).number(1).text("127.0.0.1");
      meeting.exchange(rank, packer.bytes());
      return;
    }
    const std::string text = error_of([&] { SideChannel channel(1, 2, meeting.of(1), 0.3); });
    EXPECT_PRED_FORMAT2(testing::IsSubstring, "rank 1 could not connect to rank 0 (127.0.0.1 port",
                        text);
  });
}

// Strangers reach the port first: one without the nonce, one that claims a wrong rank, one that
// sends garbage, one that says nothing. The ranks get in all the same.
TEST(SideChannel, StrangersAreRefused) {
  Meeting meeting(2);
  run_ranks(2, [&](int rank) {
    if (rank == 0) {
      SideChannel channel(0, 2, meeting.of(0), kTimeoutS);
      const auto events = receive(channel, 1);
      ASSERT_EQ(events.size(), 1u);
      EXPECT_EQ(events[0].frame.body, "it is me");
      channel.send(1, 1, "seen");
      receive(channel, 1);
      return;
    }
    std::vector<Socket> strangers;
    const Exchange exchange = [&](std::string_view text) {
      std::vector<std::string> texts = meeting.exchange(1, text);
      Unpacker from(texts[0]);
      if (!text.empty()) return texts;  // the first round: no address yet
      const std::string nonce = from.text();
      from.text();
      const auto port = static_cast<uint16_t>(from.number());
      const auto hello = [](std::string_view question, int64_t as) {
        return to_bytes(0, Packer().text(question).number(as).text("host").number(1).bytes());
      };
      for (const std::string& bytes :
           {hello("wrong", 1), hello(nonce, 0), hello(nonce, 2), hello(nonce, -1),
            std::string(100, '\xff'), std::string("GET / HTTP/1.1\r\n\r\n"), std::string()}) {
        strangers.push_back(connect_to("127.0.0.1", port, kTimeoutS));
        EXPECT_TRUE(strangers.back());
        EXPECT_EQ(send_some(strangers.back(), bytes), bytes.size());
      }
      return texts;
    };
    SideChannel channel(1, 2, exchange, kTimeoutS);
    channel.send(0, 1, "it is me");
    EXPECT_EQ(receive(channel, 1).size(), 1u);
    for (const Socket& stranger : strangers) {  // all of them are out
      EXPECT_TRUE(poll_one(stranger, POLLIN, kTimeoutS));
      const Received received = receive_all(stranger);
      EXPECT_TRUE(received.closed);
      EXPECT_EQ(received.bytes, "");
    }
  });
}

// A rank that meets a stranger at rank 0's address gives nothing away and says so.
TEST(SideChannel, AStrangerIsNotTakenForRank0) {
  const Socket listener = listen_on(Reach::kLoopback);
  std::jthread stranger([&](const std::stop_token& stop) {
    std::vector<Socket> callers;
    while (!stop.stop_requested()) {
      if (!poll_one(listener, POLLIN, 0.05)) continue;
      if (Socket caller = accept_from(listener)) {
        send_some(caller, to_bytes(1, "not the answer"));
        callers.push_back(std::move(caller));
      }
    }
  });
  Meeting meeting(2);
  run_ranks(2, [&](int rank) {
    if (rank == 0) {
      meeting.exchange(rank, loopback_domain());
      Packer packer;
      packer.text("q").text("a").number(port_of(listener)).number(1).text("127.0.0.1");
      meeting.exchange(rank, packer.bytes());
      return;
    }
    EXPECT_PRED_FORMAT2(testing::IsSubstring, "rank 1 could not connect to rank 0",
                        error_of([&] { SideChannel channel(1, 2, meeting.of(1), 0.5); }));
  });
}

TEST(SideChannel, GarbageOfARankEndsItsConnection) {
  Meeting meeting(2);
  run_ranks(2, [&](int rank) {
    SideChannel channel(rank, 2, meeting.of(rank), kTimeoutS);
    if (rank == 1) {
      const int fd = channel.poll_set()[0].fd;
      EXPECT_EQ(::write(fd, "\xff\xff\xff\xff\x01", 5), 5);
      EXPECT_TRUE(receive(channel, 1).at(0).closed);
      return;
    }
    const auto events = receive(channel, 1);
    ASSERT_EQ(events.size(), 1u);
    EXPECT_TRUE(events[0].closed);
    EXPECT_EQ(events[0].how, "its messages cannot be read");
  });
}

TEST(SideChannel, DescriptorsAreNeitherInheritedNorKept) {
  const auto open_descriptors = [] {
    std::set<int> open;
    for (int fd = 0; fd < 256; ++fd) {
      if (::fcntl(fd, F_GETFD) >= 0) open.insert(fd);
    }
    return open;
  };
  const std::set<int> before = open_descriptors();
  Meeting meeting(2);
  run_ranks(2, [&](int rank) {
    const SideChannel channel(rank, 2, meeting.of(rank), kTimeoutS);
    meeting.exchange(rank, "");
    if (rank == 0) {
      int n_new = 0;
      for (const int fd : open_descriptors()) {
        if (before.contains(fd)) continue;
        ++n_new;
        EXPECT_EQ(::fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        EXPECT_EQ(::fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
      }
      EXPECT_EQ(n_new, 2) << "the two ends of the one connection; the port is closed";
    }
    meeting.exchange(rank, "");
  });
  EXPECT_EQ(open_descriptors(), before);
}

// Ranks of different hosts: rank 0 listens on all of its addresses. Here the texts only claim so,
// and the address given is the loopback one.
TEST(SideChannel, RanksOfOtherHostsUseTheAddressesOfRank0) {
  Meeting meeting(2);
  run_ranks(2, [&](int rank) {
    int round = 0;
    const Exchange exchange = [&](std::string_view text) {
      const bool first = round++ == 0;
      std::vector<std::string> texts =
          meeting.exchange(rank, first ? "host " + std::to_string(rank) : std::string(text));
      if (first || rank == 0) return texts;
      Unpacker from(texts[0]);
      Packer changed;
      changed.text(from.text()).text(from.text());
      // The first one never answers: a network that exists in documents only.
      changed.number(from.number()).number(2).text("192.0.2.1").text("127.0.0.1");
      texts[0] = changed.bytes();
      return texts;
    };
    SideChannel channel(rank, 2, exchange, kTimeoutS);
    if (rank == 1) {
      channel.send(0, 1, "found");
      EXPECT_TRUE(receive(channel, 1).at(0).closed);
    } else {
      EXPECT_EQ(receive(channel, 1).at(0).frame.body, "found");
    }
  });
}

TEST(SideChannel, OneRankNeedsNobody) {
  SideChannel channel(
      0, 1, [](std::string_view text) { return std::vector{std::string(text)}; }, kTimeoutS);
  EXPECT_EQ(channel.size(), 1);
  EXPECT_EQ(channel.poll_set()[0].fd, -1);
}

TEST(Socket, AddressesOfThisHostAreForOthers) {
  for (const std::string& address : addresses_of_this_host()) {
    EXPECT_FALSE(address.starts_with("127.") || address.starts_with("169.254.")) << address;
    EXPECT_FALSE(address == "::1" || address.starts_with("fe80")) << address;
  }
  EXPECT_FALSE(host_name().empty());
  EXPECT_EQ(loopback_domain(), loopback_domain());
}

}  // namespace
}  // namespace qstep::parallel
