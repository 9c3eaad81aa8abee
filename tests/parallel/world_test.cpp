// Order, overlap, groups, point to point, and misuse, in a world of any size.
#include "parallel/world.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <list>
#include <thread>

#include "parallel/cpu_share.h"
#include "parallel/mesh.h"
#include "tests/parallel/rank_data.h"
#include "tests/parallel/world_main.h"

namespace qstep::parallel {
namespace {

size_t my_rank() { return static_cast<size_t>(world().rank()); }

// Group by group: what its all_reduce makes of rank + 1, in the world's numbers.
int32_t sum_in(Comm& comm, int32_t value) {
  comm.wait(comm.all_reduce(ops::view(std::span(&value, 1)), Reduce::kSum));
  return value;
}

TEST(World, TicketsAscendAndLaterOnesContainEarlierOnes) {
  std::vector<std::vector<float>> x(50, std::vector<float>(3000, 1.0f));
  std::vector<Comm::Ticket> tickets;
  for (auto& values : x) {
    tickets.push_back(world().all_reduce(ops::view(std::span(values)), Reduce::kSum));
  }
  if (world().size() > 1) {
    for (size_t i = 1; i < tickets.size(); ++i) EXPECT_LT(tickets[i - 1], tickets[i]);
  }
  world().wait(tickets[30]);
  const std::vector<float> expected(3000, static_cast<float>(world().size()));
  for (size_t i = 0; i <= 30; ++i) EXPECT_EQ(expected, x[i]) << i;
  world().wait(tickets[10]);  // long done
  world().wait(tickets.back());
  for (const auto& values : x) EXPECT_EQ(expected, values);
}

// A stream of random collectives, of which many are under way at any time.
TEST(World, ManyCollectivesInFlight) {
  struct Pending {
    Field x;
    Bytes expected;
    Comm::Ticket ticket;
  };
  std::list<Pending> pending;
  for (uint64_t i = 0; i < 300; ++i) {
    const int64_t n = random_integer(1, i, 0, random_integer(2, i, 0, 1) == 0 ? 50 : 40000);
    const Dtype dtype = random_integer(3, i, 0, 1) == 0 ? Dtype::kF32 : Dtype::kBf16;
    std::vector<Bytes> inputs;
    for (int r = 0; r < world().size(); ++r) {
      inputs.push_back(random_elements(dtype, n, 1000 * i + static_cast<uint64_t>(r)));
    }
    const int root = static_cast<int>(random_integer(4, i, 0, world().size() - 1));
    Pending& p = pending.emplace_back(Field(dtype, inputs[my_rank()]), Bytes(), 0);
    switch (random_integer(5, i, 0, 2)) {
      case 0:
        p.ticket = world().all_reduce(p.x, Reduce::kSum);
        p.expected = reduced(inputs, dtype, Reduce::kSum);
        break;
      case 1:
        p.ticket = world().broadcast(p.x, root);
        p.expected = inputs[static_cast<size_t>(root)];
        break;
      case 2: {
        std::vector<int64_t> whole(static_cast<size_t>(world().size()) + 1, n);
        std::fill(whole.begin(), whole.begin() + root + 1, 0);  // all of it is the root's
        p.ticket = world().reduce_scatter(p.x, whole);
        p.expected =
            world().rank() == root ? reduced(inputs, dtype, Reduce::kSum) : inputs[my_rank()];
        break;
      }
    }
    while (pending.size() > 40) {
      world().wait(pending.front().ticket);
      pending.front().x.expect(pending.front().expected, fmt::format("before {}", i));
      pending.pop_front();
    }
  }
  for (const Pending& p : pending) {
    world().wait(p.ticket);
    p.x.expect(p.expected, "at the end");
  }
}

// The caller does something else, and never waits before all is done.
TEST(World, CollectivesRunWithoutAnybodyWaiting) {
  if (world().size() == 1) return;  // nothing runs there
  std::vector<float> x(200'000, 1.0f);
  int32_t last = 1;
  // Every part goes out twice before the second collective sends its first message.
  const int64_t expected = world().times().messages_sent + 2 * (world().size() - 1) + 1;
  world().all_reduce(ops::view(std::span(x)), Reduce::kSum);
  const Comm::Ticket ticket = world().all_reduce(ops::view(std::span(&last, 1)), Reduce::kSum);
  for (int i = 0; i < 4000 && world().times().messages_sent < expected; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_GE(world().times().messages_sent, expected);
  world().wait(ticket);
  EXPECT_EQ(std::vector<float>(200'000, static_cast<float>(world().size())), x);
  EXPECT_EQ(world().size(), last);
}

TEST(World, SendsAndReceivesInARing) {
  const int size = world().size();
  if (size == 1) {
    EXPECT_THROW(world().send(Field(Dtype::kF32, 3), 0), ops::Error);
    return;
  }
  const int next = (world().rank() + 1) % size, previous = (world().rank() + size - 1) % size;
  for (const int64_t n : {0, 1, 100, 300'000}) {
    const auto input_of = [&](int rank, uint64_t i) {
      return random_elements(Dtype::kF32, n, 10 * static_cast<uint64_t>(rank) + i);
    };
    // Both sends first: no rank is ready to receive when it sends.
    const Field a(Dtype::kF32, input_of(world().rank(), 0)),
        b(Dtype::kF32, input_of(world().rank(), 1));
    const Field from_a(Dtype::kF32, n), from_b(Dtype::kF32, n);
    world().send(a, next);
    world().send(b, next);
    world().receive(from_a, previous);
    const Comm::Ticket ticket = world().receive(from_b, previous);
    const int32_t total = sum_in(world(), 1);  // may follow at once
    world().wait(ticket);
    from_a.expect(input_of(previous, 0), "first message");
    from_b.expect(input_of(previous, 1), "second message");
    EXPECT_EQ(size, total);
  }
}

// Only two ranks take part; all go on together.
TEST(World, TwoRanksTalkWhileOthersGoOn) {
  const int size = world().size();
  if (size == 1) return;
  std::vector<float> x{1.0f, 2.0f};
  const ops::Tensor view = ops::view(std::span(x));
  if (world().rank() == 0) {
    x[0] = 5.0f;
    world().send(view, size - 1);
  }
  if (world().rank() == size - 1) world().wait(world().receive(view, 0));
  EXPECT_EQ(size, sum_in(world(), 1));
  EXPECT_EQ(world().rank() == 0 || world().rank() == size - 1 ? 5.0f : 1.0f, x[0]);
}

TEST(World, SplitsByColorInTheOrderOfKeys) {
  const int size = world().size(), rank = world().rank();
  const std::unique_ptr<Comm> parity = world().split(rank % 2, rank);
  EXPECT_EQ(rank / 2, parity->rank());
  EXPECT_EQ((size + 1 - rank % 2) / 2, parity->size());
  const std::unique_ptr<Comm> reversed = world().split(0, -rank);
  EXPECT_EQ(size - 1 - rank, reversed->rank());
  EXPECT_EQ(size, reversed->size());
  const std::unique_ptr<Comm> same_key = world().split(7, 0);
  EXPECT_EQ(rank, same_key->rank());

  int32_t expected = 0;
  for (int r = rank % 2; r < size; r += 2) expected += r + 1;
  EXPECT_EQ(expected, sum_in(*parity, rank + 1));
  EXPECT_EQ(size * (size + 1) / 2, sum_in(*reversed, rank + 1));

  // Sums follow the order of the group, not of the world.
  std::vector<Bytes> inputs;
  for (int r = size - 1; r >= 0; --r) {
    inputs.push_back(random_elements(Dtype::kF32, 999, static_cast<uint64_t>(r)));
  }
  const Field x(Dtype::kF32, inputs[static_cast<size_t>(reversed->rank())]);
  reversed->wait(reversed->all_reduce(x, Reduce::kSum));
  x.expect(reduced(inputs, Dtype::kF32, Reduce::kSum), "sum of the reversed group");
}

// Rows and columns of a mesh, used in turn with each other and with the world, without waiting.
TEST(World, GroupsAndTheirWorldInterleave) {
  const int size = world().size(), rank = world().rank();
  const int columns = size % 2 == 0 ? 2 : 1;
  const std::unique_ptr<Comm> row = world().split(rank / columns, rank);
  const std::unique_ptr<Comm> column = world().split(rank % columns, rank);
  const std::unique_ptr<Comm> alone = row->split(row->rank(), 0);
  EXPECT_EQ(1, alone->size());
  std::vector<std::vector<float>> x(60, std::vector<float>(2000, 1.0f));
  Comm::Ticket last = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    Comm* const comms[] = {&world(), row.get(), column.get(), alone.get()};
    last = comms[i % 4]->all_reduce(ops::view(std::span(x[i])), Reduce::kSum);
  }
  world().wait(last);
  for (size_t i = 0; i < x.size(); ++i) {
    const int sizes[] = {size, columns, size / columns, 1};
    EXPECT_EQ(std::vector<float>(2000, static_cast<float>(sizes[i % 4])), x[i]) << i;
  }
}

TEST(World, IsWhatTheLauncherSaid) {
  const Launch launch = find_launch();
  EXPECT_EQ(launch.rank, world().rank());
  EXPECT_EQ(launch.size, world().size());
  EXPECT_EQ(launch.rank, launch.local_rank);  // these tests run on one machine
  EXPECT_EQ(launch.size, launch.local_size);
}

TEST(World, RanksShareTheProcessors) {
  const auto n_cpus = static_cast<int>(parse_cpu_list(allowed_cpus()).size());
  EXPECT_EQ(std::max(1, n_cpus / world().size()), cpu_share(world()));
}

TEST(World, SplitsIntoAMesh) {
  const int size = world().size();
  const Mesh mesh = make_mesh(size, size % 2 == 0 ? 2 : 1);
  const std::unique_ptr<Comm> data = split_data(world(), mesh);
  const std::unique_ptr<Comm> tensor = split_tensor(world(), mesh);
  EXPECT_EQ(mesh.data, data->size());
  EXPECT_EQ(mesh.tensor, tensor->size());
  EXPECT_EQ(world().rank(), mesh.rank(data->rank(), tensor->rank()));
  // A sum over the tensor group, then over the data group, is one over the world.
  EXPECT_EQ(size * (size - 1) / 2, sum_in(*data, sum_in(*tensor, world().rank())));
}

TEST(World, CountsWhatItSends) {
  const auto size = static_cast<int64_t>(world().size());
  world().wait(world().barrier());
  const CommTimes before = world().times();
  std::vector<float> x(static_cast<size_t>(size) * 1000, 1.0f);
  std::vector<int64_t> bounds;
  for (int64_t r = 0; r <= size; ++r) bounds.push_back(r * 1000);
  world().wait(world().all_gather(ops::view(std::span(x)), bounds));
  world().wait(world().reduce_scatter(ops::view(std::span(x)), bounds));
  const CommTimes after = world().times();
  EXPECT_EQ(2 * (size - 1) * 4000, after.bytes_sent - before.bytes_sent);
  EXPECT_EQ(2 * (size - 1), after.messages_sent - before.messages_sent);
  if (size == 1) return;
  EXPECT_GT(after.busy_ms, before.busy_ms);
}

// Each is refused before anything is sent, so the ranks stay together.
TEST(World, RefusesWhatIsNotACollective) {
  Comm& comm = world();
  std::vector<float> x(12);
  const ops::Tensor view = ops::view(std::span(x), 3, 4);
  const Field bytes(Dtype::kU8, 12), numbers(Dtype::kI32, 12);
  const std::vector<int64_t> whole = random_bounds(12, comm.size(), 1);
  std::vector<int64_t> too_short = whole, too_long = whole, many = whole;
  too_short.back() = 11;
  too_long.back() = 13;
  many.push_back(12);
  EXPECT_THROW(comm.all_reduce(view.col_range(0, 2), Reduce::kSum), ops::Error);
  EXPECT_THROW(comm.all_gather(view, too_short), ops::Error);
  EXPECT_THROW(comm.all_gather(view, too_long), ops::Error);
  EXPECT_THROW(comm.reduce_scatter(view, many), ops::Error);
  EXPECT_THROW(comm.broadcast(view, comm.size()), ops::Error);
  EXPECT_THROW(comm.broadcast(view, -1), ops::Error);
  EXPECT_THROW(comm.send(view, comm.rank()), ops::Error);
  EXPECT_THROW(comm.receive(view, comm.size()), ops::Error);
  if (comm.size() > 1) {  // the world of one rank has nothing to add, and no parts
    EXPECT_THROW(comm.all_reduce(bytes, Reduce::kSum), ops::Error);
    EXPECT_THROW(comm.reduce_scatter(numbers, whole), ops::Error);
    EXPECT_THROW(comm.all_to_all(view, view), ops::Error);
    EXPECT_THROW(comm.wait(comm.barrier() + 1000), ops::Error);
    std::vector<int64_t> descending = whole;
    descending[1] = 13;
    EXPECT_THROW(comm.all_gather(view, descending), ops::Error);
  }
  EXPECT_EQ(comm.size(), sum_in(comm, 1));
}

}  // namespace
}  // namespace qstep::parallel
