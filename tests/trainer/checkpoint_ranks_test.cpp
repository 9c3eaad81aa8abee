// Checkpoints that several ranks write, and other numbers of ranks read.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>

#include "data/hdf5.h"
#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/ranks_testing.h"
#include "trainer/checkpoint/checkpoint_folders.h"
#include "trainer/checkpoint/checkpoint_manifest.h"

namespace qstep::trainer {
namespace {

namespace fs = std::filesystem;
using ops::ExitCode;
using parallel::Comm;
using test::run_ranks;
using testing::code_of;
using testing::Contents;
using testing::GlobalTensors;
using testing::names_in;
using testing::Piece;
using testing::Random;
using testing::Storage;
using testing::TemporaryFolder;
using Names = std::vector<std::string>;

constexpr int kMostRanks = 4;

CheckpointState state_of(int64_t step) { return Contents(step).state(); }

void save(const GlobalTensors& tensors, const std::string& root, int64_t step, int n_ranks,
          const std::vector<Piece>& pieces) {
  run_ranks(n_ranks, [&](Comm& comm) { tensors.save(comm, root, state_of(step), pieces); });
}

// R05: what any number of ranks wrote, any number reads, however the tensors are cut.
TEST(CheckpointRanks, R05_AnyCutComesBackAtAnyOther) {
  constexpr int kTrials = 6;
  Random random(51);
  for (int writers = 1; writers <= kMostRanks; ++writers) {
    for (int trial = 0; trial < kTrials; ++trial) {
      const TemporaryFolder root(Storage::kMemory);
      const GlobalTensors tensors(static_cast<uint64_t>(100 * writers + trial));
      save(tensors, root.path(), 3, writers, tensors.cut(random, writers));
      const std::string path = root / "step-00000003";
      EXPECT_EQ(verify_checkpoint(path, Verify::kFull), "");
      for (int readers = 1; readers <= kMostRanks; ++readers) {
        const std::vector<Piece> pieces = tensors.cut(random, readers);
        run_ranks(readers, [&](Comm& comm) {
          const CheckpointReader reader(comm, path);
          EXPECT_EQ(reader.state().tokens, state_of(3).tokens);
          EXPECT_EQ(reader.state().tokenizer_model, state_of(3).tokenizer_model);
          for (const Piece& piece : pieces) {
            if (piece.rank != comm.rank()) continue;
            EXPECT_TRUE(tensors.agrees(reader, piece));
          }
        });
      }
      const CheckpointReader reader(path);
      for (size_t t = 0; t < tensors.tensors().size(); ++t) {
        const ops::Tensor& x = tensors.tensors()[t].tensor;
        EXPECT_TRUE(tensors.agrees(reader, {t, 0, whole(x)}));
      }
    }
  }
}

TEST(CheckpointRanks, EachRankHasAFileWithItsSlicesByName) {
  const TemporaryFolder root;
  const std::vector<float> a = {0, 1, 2, 3, 4, 5};
  const Slice all = whole(2, 3);
  run_ranks(2, [&](Comm& comm) {
    std::vector<float> copy = a;
    const auto run = [&](int64_t first, int64_t n) {
      return NamedTensor{
          "master/a",
          ops::view(std::span(copy).subspan(static_cast<size_t>(first), static_cast<size_t>(n))),
          run_of(all, first, n)};
    };
    std::vector<NamedTensor> own;
    if (comm.rank() == 0) {
      own = {run(2, 3)};
    } else {
      own = {run(0, 2), run(5, 1), run(3, 0)};  // the last one is empty
    }
    // All ranks have it, rank 0 stores it.
    own.push_back({"same", ops::view(std::span(copy))});
    save_checkpoint(comm, root.path(), state_of(1), own, 0);
  });
  const std::string path = root / "step-00000001";
  EXPECT_EQ(names_in(path), (Names{"manifest.json", "rank00000.h5", "rank00001.h5", "state.json",
                                   "tokenizer.model"}));
  const data::Hdf5File first = data::Hdf5File::open(path + "/rank00000.h5");
  const data::Hdf5File second = data::Hdf5File::open(path + "/rank00001.h5");
  EXPECT_EQ(second.read_u64("/", "rank"), 1u);
  EXPECT_EQ(second.read_u64("/", "ranks"), 2u);
  const auto values = [](const data::Hdf5File& file, const std::string& name, size_t n) {
    std::vector<float> found(n);
    file.read_dataset(name, data::Hdf5Type::kF32, n, found.data());
    return found;
  };
  EXPECT_EQ(values(first, "/master/a", 3), (std::vector<float>{2, 3, 4}));
  EXPECT_EQ(first.read_u64("/master/a", "run_first"), 2u);
  EXPECT_EQ(values(first, "/same", 6), a);
  EXPECT_EQ(values(second, "/master/a/part0", 2), (std::vector<float>{0, 1}));
  EXPECT_EQ(values(second, "/master/a/part1", 1), (std::vector<float>{5}));
  EXPECT_FALSE(second.exists("/master/a/part2"));
  EXPECT_FALSE(second.exists("/same"));
  const CheckpointInfo info = inspect_checkpoint(path, Verify::kFull);
  EXPECT_EQ(info.problem, "");
  EXPECT_EQ(info.ranks, 2);
}

// ---- tensors that are not whole ----------------------------------------------------------------

// Every piece of one tensor taken away, or given to one more rank.
TEST(CheckpointRanks, GapsAndOverlapsAreNotPublished) {
  Random random(52);
  const GlobalTensors tensors(7);
  const std::vector<Piece> good = tensors.cut(random, 3);
  for (const bool twice : {false, true}) {
    for (size_t i = 0; i < good.size(); ++i) {
      const TemporaryFolder root(Storage::kMemory);
      std::vector<Piece> pieces = good;
      const Piece changed = pieces[i];
      if (twice) {
        pieces.push_back({changed.tensor, (changed.rank + 1) % 3, changed.slice});
      } else {
        pieces.erase(pieces.begin() + static_cast<std::ptrdiff_t>(i));
      }
      const NamedTensor& tensor = tensors.tensors()[changed.tensor];
      const bool absent = std::none_of(pieces.begin(), pieces.end(), [&](const Piece& piece) {
        return piece.tensor == changed.tensor;
      });
      if (absent) continue;  // a tensor that nobody names is not missed
      run_ranks(3, [&](Comm& comm) {
        std::string text;
        EXPECT_EQ(code_of([&] { tensors.save(comm, root.path(), state_of(1), pieces); }, &text),
                  ExitCode::kInternal);
        const std::string place = fmt::format(
            "tensor {} [{}, {}]: the element in row {}, column {}", tensor.name, tensor.tensor.rows,
            tensor.tensor.cols, changed.slice.row_of(0), changed.slice.col_of(0));
        EXPECT_NE(text.find(place), std::string::npos) << text;
        EXPECT_NE(text.find(twice ? rank_file(changed.rank) : "in no file"), std::string::npos)
            << text;
      });
      EXPECT_TRUE(names_in(root.path()).empty());
    }
  }
}

TEST(CheckpointRanks, ManifestsThatDoNotFitTogetherAreRefused) {
  const TemporaryFolder root(Storage::kMemory);
  Random random(53);
  const GlobalTensors tensors(8);
  save(tensors, root.path(), 1, 2, tensors.cut(random, 2));
  const std::string path = root / "step-00000001";
  const Manifest good = read_manifest(path);
  const auto expect_refused = [&](const Manifest& manifest, const std::string& part) {
    std::ofstream(path + "/" + kManifestFile) << to_json(manifest);
    std::string text;
    EXPECT_EQ(code_of([&] { CheckpointReader reader(path); }, &text), ExitCode::kCheckpoint);
    for (const std::string& expected : {path, manifest.tensors[0].name, part}) {
      EXPECT_NE(text.find(expected), std::string::npos) << text;
    }
  };
  const auto slices = [](Manifest& m) -> std::vector<TensorSlice>& { return m.tensors[0].slices; };
  Manifest changed = good;
  slices(changed).pop_back();
  expect_refused(changed, "is in no file");
  changed = good;
  slices(changed).push_back(slices(changed).front());
  expect_refused(changed, "is there twice");
  changed = good;
  slices(changed).front().file = "rank00007.h5";
  expect_refused(changed, "rank00007.h5");
  changed = good;
  slices(changed).front().offset = 1 << 20;
  expect_refused(changed, "beyond the end");
  changed = good;
  slices(changed).front().held.count = int64_t{1} << 60;
  expect_refused(changed, "reaches outside");
  changed = good;
  slices(changed).front().held.block_rows = int64_t{1} << 62;
  expect_refused(changed, "reaches outside");
  expect_refused(
      [&] {
        Manifest m = good;
        m.tensors[0].rows += 1;
        for (TensorSlice& slice : m.tensors[0].slices) slice.held.rows += 1;
        return m;
      }(),
      "is in no file");
}

TEST(CheckpointRanks, ReadsAreCheckedAgainstTheModel) {
  const TemporaryFolder root(Storage::kMemory);
  Random random(54);
  const GlobalTensors tensors(9);
  save(tensors, root.path(), 1, 3, tensors.cut(random, 3));
  const CheckpointReader reader(root / "step-00000001");
  const NamedTensor& a = tensors.tensors()[0];
  std::vector<uint8_t> memory(1000);
  const auto read = [&](const std::string& name, const Slice& slice) {
    return code_of([&] {
      reader.read({name, ops::matrix(memory.data(), a.tensor.dtype, 1, slice.count), slice});
    });
  };
  const Slice all = whole(a.tensor);
  EXPECT_EQ(read(a.name, run_of(all, all.count - 1, 1)), ExitCode::kOk);
  EXPECT_EQ(read(a.name, run_of(all, 0, 0)), ExitCode::kOk);
  EXPECT_EQ(read(a.name, whole(all.rows + 1, all.cols)), ExitCode::kCheckpoint);
  EXPECT_EQ(read("master/c.weight", all), ExitCode::kCheckpoint);
}

// ---- damage ------------------------------------------------------------------------------------

void flip_bit(const std::string& path, int64_t position) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(position);
  const auto byte = static_cast<char>(file.get() ^ 4);
  file.seekp(position);
  file.put(byte);
}

// The newest of steps 1 and 2 is damaged: every rank takes step 1, and rank 0 alone is told why.
void expect_fallback(const TemporaryFolder& root, const Names& parts) {
  std::atomic<int> n_told = 0;
  run_ranks(3, [&](Comm& comm) {
    std::string text;
    EXPECT_EQ(code_of([&] { CheckpointReader reader(comm, root / "step-00000002"); }, &text),
              ExitCode::kCheckpoint);
    for (const std::string& part : parts) {
      EXPECT_NE(text.find(part), std::string::npos) << text;
    }
    const auto newest = newest_checkpoint(comm, root.path(), [&](const CheckpointInfo& info) {
      EXPECT_EQ(comm.rank(), 0);
      EXPECT_EQ(info.problem, text);
      ++n_told;
    });
    EXPECT_EQ(newest.value_or(""), root / "step-00000001");
  });
  EXPECT_EQ(n_told, 1);
}

TEST(CheckpointRanks, R03_DamageInAnyRanksFileIsNamed) {
  const TemporaryFolder root(Storage::kMemory);
  Random random(55);
  const GlobalTensors tensors(10);
  for (const int64_t step : {1, 2}) {
    save(tensors, root.path(), step, 3, tensors.cut(random, 3));
  }
  const std::string path = root / "step-00000002";
  for (const ManifestTensor& tensor : read_manifest(path).tensors) {
    for (const TensorSlice& slice : tensor.slices) {
      const std::string file = path + "/" + slice.file;
      const int64_t position =
          slice.offset + random.between(0, slice.held.count * ops::size_bytes(tensor.dtype) - 1);
      flip_bit(file, position);
      expect_fallback(root, {file, tensor.name, slice.hash, "is damaged"});
      flip_bit(file, position);
    }
  }
  for (int64_t rank = 0; rank < 3; ++rank) {
    const std::string file = path + "/" + rank_file(rank);
    fs::rename(file, root / "kept");
    expect_fallback(root, {file, "is missing"});
    fs::rename(root / "kept", file);
  }
  EXPECT_EQ(verify_checkpoint(path, Verify::kFull), "");
}

// Each rank checks its share of the files and no other: rank r of n sees a copy of the folder in
// which the files of the others are damaged.
TEST(CheckpointRanks, EveryFileIsCheckedByOneRank) {
  const TemporaryFolder root(Storage::kMemory);
  Random random(58);
  const GlobalTensors tensors(13);
  save(tensors, root.path(), 1, 3, tensors.cut(random, 3));
  const std::string path = root / "step-00000001";
  const Manifest manifest = read_manifest(path);
  const auto n_files = static_cast<int>(manifest.files.size());
  ASSERT_EQ(n_files, 5);  // of three ranks, state.json and the tokenizer
  for (const int n_ranks : {1, 2, 3, n_files, n_files + 2}) {
    const auto copy_of = [&](int rank) { return root / fmt::format("{}-{}", n_ranks, rank); };
    for (int rank = 0; rank < n_ranks; ++rank) {
      fs::copy(path, copy_of(rank));
      for (int i = 0; i < n_files; ++i) {
        const std::string& name = manifest.files[static_cast<size_t>(i)].name;
        if (i % n_ranks != rank) flip_bit(copy_of(rank) + "/" + name, 0);
      }
    }
    run_ranks(n_ranks, [&](Comm& comm) {
      EXPECT_EQ(damage_problem(comm, manifest, copy_of(comm.rank())), "") << n_ranks;
    });
  }
}

// Whichever ranks find the damage: the first file of the manifest is named, in the words of one
// rank alone.
TEST(CheckpointRanks, TheFirstDamagedFileIsNamed) {
  const TemporaryFolder root(Storage::kMemory);
  Random random(59);
  const GlobalTensors tensors(14);
  save(tensors, root.path(), 1, 4, tensors.cut(random, 4));
  const std::string path = root / "step-00000001";
  const Manifest manifest = read_manifest(path);
  for (size_t last = manifest.files.size(); last-- > 0;) {  // all from there on are damaged
    flip_bit(path + "/" + manifest.files[last].name, 0);
    const std::string expected = verify_checkpoint(path, Verify::kFull);
    EXPECT_NE(expected.find(manifest.files[last].name), std::string::npos) << expected;
    for (const int n_ranks : {2, 3, 5}) {
      run_ranks(n_ranks, [&](Comm& comm) {
        EXPECT_EQ(verify_checkpoint(comm, path, Verify::kFull), expected) << n_ranks;
        EXPECT_EQ(verify_checkpoint(comm, path, Verify::kFast), "") << n_ranks;
      });
    }
  }
}

// Between the verification and the reading.
TEST(CheckpointRanks, DamageIsSeenByTheRankThatReads) {
  const TemporaryFolder root(Storage::kMemory);
  Random random(56);
  const GlobalTensors tensors(11);
  save(tensors, root.path(), 1, 2, tensors.cut(random, 2));
  const std::string path = root / "step-00000001";
  const Manifest manifest = read_manifest(path);
  run_ranks(3, [&](Comm& comm) {
    const CheckpointReader reader(comm, path);
    for (size_t t = 0; t < tensors.tensors().size(); ++t) {
      const TensorSlice& slice = manifest.tensors[t].slices.back();
      comm.wait(comm.barrier());
      if (comm.rank() == 0) flip_bit(path + "/" + slice.file, slice.offset);
      comm.wait(comm.barrier());
      const auto named =
          std::find_if(tensors.tensors().begin(), tensors.tensors().end(),
                       [&](const NamedTensor& x) { return x.name == manifest.tensors[t].name; });
      const auto index = static_cast<size_t>(named - tensors.tensors().begin());
      std::string text;
      EXPECT_EQ(code_of(
                    [&] {
                      tensors.agrees(reader, {index, 0, whole(named->tensor)});
                    },
                    &text),
                ExitCode::kCheckpoint);
      EXPECT_NE(text.find(named->name), std::string::npos) << text;
      EXPECT_NE(text.find(slice.file), std::string::npos) << text;
    }
  });
}

TEST(CheckpointRanks, RankZeroCleansUp) {
  const TemporaryFolder root(Storage::kMemory);
  const GlobalTensors tensors(12);
  Random random(57);
  save(tensors, root.path(), 1, 2, tensors.cut(random, 2));
  fs::create_directory(root / "step-00000002.tmp-0123abcd");
  run_ranks(3, [&](Comm& comm) {
    remove_stale_temporaries(comm, root.path());
    EXPECT_EQ(names_in(root.path()), (Names{"latest", "step-00000001"}));
  });
  const TemporaryFolder empty;
  run_ranks(
      2, [&](Comm& comm) { EXPECT_FALSE(newest_checkpoint(comm, empty.path(), {}).has_value()); });
}

}  // namespace
}  // namespace qstep::trainer
