// The world that other tests stand on.
#include "tests/support/thread_comm.h"

#include <gtest/gtest.h>

#include <array>
#include <numeric>
#include <vector>

namespace qstep::test {
namespace {

using ops::ExitCode;
using parallel::Comm;
using parallel::Reduce;
using Floats = std::vector<float>;

constexpr std::array kSizes = {1, 2, 3, 4, 7};

ExitCode code_of(int n_ranks, const std::function<void(Comm&)>& f) {
  try {
    run_ranks(n_ranks, f);
  } catch (const ops::Error& error) {
    return error.code();
  }
  return ExitCode::kOk;
}

TEST(ThreadComm, AddsInTheTreeOfRanks) {
  // (1 + 2^24) + 1 and 1 + (2^24 + 1) differ in FP32, as does BF16 that is rounded after each sum.
  const std::array<float, 4> leaves = {1.0f, 0x1p24f, 1.0f, 1.0f};
  run_ranks(4, [&](Comm& comm) {
    const float own = leaves[static_cast<size_t>(comm.rank())];
    Floats x = {own, -own};
    comm.wait(comm.all_reduce(ops::view(std::span(x)), Reduce::kSum));
    EXPECT_EQ((1.0f + 0x1p24f) + (1.0f + 1.0f), x[0]);
    EXPECT_EQ(-x[0], x[1]);
    std::vector<precision::Bf16> half(1, precision::to_bf16(comm.rank() == 0 ? 1.0f : 0x1p-8f));
    comm.wait(comm.all_reduce(ops::view(std::span(half)), Reduce::kSum));
    EXPECT_EQ(precision::to_bf16(1.0f + 3 * 0x1p-8f).bits, half[0].bits);
  });
}

TEST(ThreadComm, TakesTheLargest) {
  for (const int n : kSizes) {
    run_ranks(n, [&](Comm& comm) {
      std::vector<int32_t> x = {comm.rank(), -comm.rank()};
      comm.wait(comm.all_reduce(ops::view(std::span(x)), Reduce::kMax));
      EXPECT_EQ((std::vector<int32_t>{n - 1, 0}), x);
    });
  }
}

TEST(ThreadComm, ScattersAndGathersUnequalParts) {
  for (const int n : kSizes) {
    std::vector<int64_t> bounds(static_cast<size_t>(n) + 1);
    for (size_t r = 0; r < static_cast<size_t>(n); ++r) {
      bounds[r + 1] = bounds[r] + static_cast<int64_t>(r % 3);  // the first part is empty
    }
    run_ranks(n, [&](Comm& comm) {
      const auto r = static_cast<size_t>(comm.rank());
      Floats x(static_cast<size_t>(bounds.back()), static_cast<float>(comm.rank() + 1));
      comm.wait(comm.reduce_scatter(ops::view(std::span(x)), bounds));
      const auto sum = static_cast<float>(n * (n + 1) / 2);
      for (int64_t i = 0; i < bounds.back(); ++i) {
        const bool own = i >= bounds[r] && i < bounds[r + 1];
        EXPECT_EQ(own ? sum : static_cast<float>(comm.rank() + 1), x[static_cast<size_t>(i)]);
      }
      comm.wait(comm.all_gather(ops::view(std::span(x)), bounds));
      EXPECT_EQ(Floats(x.size(), sum), x);
    });
  }
}

TEST(ThreadComm, BroadcastsAndExchanges) {
  for (const int n : kSizes) {
    run_ranks(n, [&](Comm& comm) {
      for (int root = 0; root < n; ++root) {
        Floats x(3, static_cast<float>(comm.rank()));
        comm.wait(comm.broadcast(ops::view(std::span(x)), root));
        EXPECT_EQ(Floats(3, static_cast<float>(root)), x);
      }
      std::vector<int32_t> in(static_cast<size_t>(n)), out(in.size()), expected(in.size());
      for (int r = 0; r < n; ++r) {
        in[static_cast<size_t>(r)] = 100 * comm.rank() + r;
        expected[static_cast<size_t>(r)] = 100 * r + comm.rank();
      }
      comm.wait(comm.all_to_all(ops::view(std::span(out)), ops::view(std::span(in))));
      EXPECT_EQ(expected, out);
    });
  }
}

TEST(ThreadComm, OperationsRunBesideTheCallerInOrder) {
  run_ranks(3, [](Comm& comm) {
    Floats x = {1.0f}, received = {0.0f};
    const ops::Tensor view = ops::view(std::span(x));
    comm.all_reduce(view, Reduce::kSum);
    const Comm::Ticket second = comm.all_reduce(view, Reduce::kSum);
    // Around the ring; an even rank sends first.
    const int next = (comm.rank() + 1) % 3, previous = (comm.rank() + 2) % 3;
    const ops::Tensor in = ops::view(std::span(received));
    if (comm.rank() % 2 == 0) comm.send(view, next);
    const Comm::Ticket arrived = comm.receive(in, previous);
    const Comm::Ticket last = comm.rank() % 2 == 0 ? arrived : comm.send(view, next);
    comm.wait(second);
    EXPECT_EQ(9.0f, x[0]);
    comm.wait(last);
    EXPECT_EQ(9.0f, received[0]);
  });
}

TEST(ThreadComm, SplitsIntoGroups) {
  run_ranks(6, [](Comm& comm) {
    // Columns of a 3 x 2 mesh, in reverse order.
    const auto column = comm.split(comm.rank() % 2, -comm.rank());
    EXPECT_EQ(3, column->size());
    EXPECT_EQ(2 - comm.rank() / 2, column->rank());
    std::vector<int32_t> sum = {comm.rank()};
    column->wait(column->all_reduce(ops::view(std::span(sum)), Reduce::kSum));
    EXPECT_EQ(comm.rank() % 2 == 0 ? 0 + 2 + 4 : 1 + 3 + 5, sum[0]);
    std::vector<int32_t> root = {comm.rank()};
    column->wait(column->broadcast(ops::view(std::span(root)), 0));
    EXPECT_EQ(4 + comm.rank() % 2, root[0]);
  });
}

TEST(ThreadComm, CarriesTexts) {
  for (const int n : kSizes) {
    run_ranks(n, [&](Comm& comm) {
      std::vector<std::string> expected;
      for (int r = 0; r < n; ++r) expected.push_back(std::string(static_cast<size_t>(r), 'x'));
      EXPECT_EQ(expected, all_gather_text(comm, expected[static_cast<size_t>(comm.rank())]));
      EXPECT_EQ(expected.back(),
                broadcast_text(comm, comm.rank() == n - 1 ? expected.back() : "no", n - 1));
    });
  }
}

TEST(ThreadComm, NamesDisagreementInsteadOfHanging) {
  EXPECT_EQ(ExitCode::kInternal, code_of(3, [](Comm& comm) {
              Floats x(comm.rank() == 1 ? 5 : 4);
              comm.wait(comm.all_reduce(ops::view(std::span(x)), Reduce::kSum));
            }));
  EXPECT_EQ(ExitCode::kInternal, code_of(2, [](Comm& comm) {
              Floats x(4);
              const std::vector<int64_t> bounds = {0, 1 + comm.rank(), 4};
              comm.wait(comm.all_gather(ops::view(std::span(x)), bounds));
            }));
  EXPECT_EQ(ExitCode::kHang, code_of(2, [](Comm& comm) {
              Floats x(4);
              comm.wait(comm.send(ops::view(std::span(x)), 1 - comm.rank()));
            }));
}

TEST(ThreadComm, ARankThatEndsDoesNotLeaveTheOthersWaiting) {
  std::array<ExitCode, 3> codes{};
  EXPECT_EQ(ExitCode::kDisk, code_of(3, [&](Comm& comm) {
              if (comm.rank() == 1) throw ops::Error(ExitCode::kDisk, "full");
              try {
                comm.wait(comm.barrier());
              } catch (const ops::Error& error) {
                codes[static_cast<size_t>(comm.rank())] = error.code();
                throw;
              }
            }));
  EXPECT_EQ((std::array{ExitCode::kPeerDied, ExitCode::kOk, ExitCode::kPeerDied}), codes);
}

}  // namespace
}  // namespace qstep::test
