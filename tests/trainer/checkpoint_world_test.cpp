// Checkpoints of real processes, which share nothing but the file system and the messages.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/parallel/world_main.h"
#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/ranks_testing.h"
#include "trainer/base/agreement.h"
#include "trainer/checkpoint/checkpoint_folders.h"
#include "trainer/checkpoint/checkpoint_manifest.h"

namespace qstep::trainer {
namespace {

namespace fs = std::filesystem;
using ops::ExitCode;
using parallel::Comm;
using parallel::world;
using testing::code_of;
using testing::Contents;
using testing::GlobalTensors;
using testing::Piece;
using testing::Random;

// A folder that rank 0 makes and removes.
class SharedFolder {
 public:
  SharedFolder() {
    path_ = text_of_first_rank(world(), [] {
      const std::string path = fmt::format("{}qstep_world_{}", ::testing::TempDir(), ::getpid());
      fs::remove_all(path);
      fs::create_directories(path);
      return path;
    });
  }
  ~SharedFolder() {
    world().wait(world().barrier());  // nobody reads any more
    on_first_rank(world(), [&] { fs::remove_all(path_); });
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Every rank of `comm` reads pieces that the same random numbers give to it.
void expect_readable(Comm& comm, const std::string& path, const GlobalTensors& tensors,
                     uint64_t seed) {
  Random random(seed);
  const CheckpointReader reader(comm, path);
  for (const Piece& piece : tensors.cut(random, comm.size())) {
    if (piece.rank != comm.rank()) continue;
    EXPECT_TRUE(tensors.agrees(reader, piece)) << "tensor " << piece.tensor;
  }
}

TEST(CheckpointWorld, IsReadByEveryNumberOfRanks) {
  const SharedFolder root;
  Comm& comm = world();
  for (int64_t step = 1; step <= 3; ++step) {
    const GlobalTensors tensors(static_cast<uint64_t>(step));
    Random random(static_cast<uint64_t>(10 + step));
    tensors.save(comm, root.path(), Contents(step).state(), tensors.cut(random, comm.size()), {},
                 2);
    const auto newest = newest_checkpoint(comm, root.path(), {});
    EXPECT_EQ(newest.value_or(""), root.path() + "/" + step_folder(step));
    if (!newest) continue;
    expect_readable(comm, *newest, tensors, 20);
    // Groups of 1, 2, ... ranks and the rest, side by side.
    for (int n = 1; n < comm.size(); ++n) {
      const auto group = comm.split(comm.rank() < n ? 0 : 1, comm.rank());
      expect_readable(*group, *newest, tensors, 30);
    }
  }
  on_first_rank(comm, [&] {
    EXPECT_EQ(testing::names_in(root.path()),
              (std::vector<std::string>{"latest", "step-00000002", "step-00000003"}));
  });
}

TEST(CheckpointWorld, AnErrorOnAnyRankEndsTheSaveOnAll) {
  const SharedFolder root;
  Comm& comm = world();
  const GlobalTensors tensors(4);
  Random random(5);
  const std::vector<Piece> pieces = tensors.cut(random, comm.size());
  tensors.save(comm, root.path(), Contents(1).state(), pieces);
  for (int rank = 0; rank < comm.size(); ++rank) {
    for (const char* failing : {"create", "close", "fsync"}) {
      const StepHook hook = [&](std::string_view step, const std::string&) {
        return comm.rank() == rank && step == failing ? ENOSPC : 0;
      };
      std::string text;
      EXPECT_EQ(code_of([&] { tensors.save(comm, root.path(), Contents(2).state(), pieces, hook); },
                        &text),
                ExitCode::kDisk);
      EXPECT_NE(text.find(rank_file(rank)), std::string::npos) << text;
      EXPECT_EQ(comm.size() > 1, text.starts_with(fmt::format("rank {}: ", rank))) << text;
    }
  }
  on_first_rank(comm, [&] {
    EXPECT_EQ(testing::names_in(root.path()),
              (std::vector<std::string>{"latest", "step-00000001"}));
  });
  expect_readable(comm, root.path() + "/step-00000001", tensors, 40);
}

}  // namespace
}  // namespace qstep::trainer
