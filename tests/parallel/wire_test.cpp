#include "parallel/wire.h"

#include <gtest/gtest.h>

#include <limits>

#include "parallel/standing.h"
#include "parallel/verdict.h"

namespace qstep::parallel {
namespace {

TEST(Wire, FramesComeWholeHoweverTheyArrive) {
  const std::string zeros(3, '\0');
  const std::string bytes = to_bytes(1, "first") + to_bytes(255, "") + to_bytes(3, zeros);
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    FrameReader reader;
    std::vector<Frame> frames;
    for (size_t at = 0; at < bytes.size(); at += piece) {
      reader.append(std::string_view(bytes).substr(at, piece));
      while (std::optional<Frame> frame = reader.next()) frames.push_back(*frame);
    }
    ASSERT_EQ(frames.size(), 3u) << piece;
    EXPECT_EQ(frames[0].body, "first");
    EXPECT_EQ(frames[1].kind, 255);
    EXPECT_EQ(frames[2].body, zeros);
  }
}

TEST(Wire, ImpossibleLengthsAreRefused) {
  EXPECT_THROW(to_bytes(0, std::string(kMaxBodyBytes + 1, 'x')), ops::Error);
  FrameReader reader;
  reader.append(std::string_view("\x01\x00\x10\x00\x00", 5));  // kMaxBodyBytes + 1
  EXPECT_THROW(reader.next(), WireError);
}

TEST(Wire, FieldsComeBack) {
  Packer to;
  to.number(-5).seconds(0.1).text("").text(std::string("a\0b", 3));
  to.number(std::numeric_limits<int64_t>::min());
  Unpacker from(to.bytes());
  EXPECT_EQ(from.number(), -5);
  EXPECT_EQ(from.seconds(), 0.1);
  EXPECT_EQ(from.text(), "");
  EXPECT_EQ(from.text(), std::string("a\0b", 3));
  EXPECT_EQ(from.number(), std::numeric_limits<int64_t>::min());
  EXPECT_THROW(from.number(), WireError);
}

TEST(Wire, DamagedBodiesAreRefused) {
  Packer negative, long_text;
  negative.number(-1);
  long_text.number(1000);
  EXPECT_THROW(Unpacker(negative.bytes()).text(), WireError);
  EXPECT_THROW(Unpacker(long_text.bytes()).text(), WireError);
  EXPECT_THROW(Unpacker(negative.bytes()).number_below(10), WireError);
  EXPECT_THROW(Unpacker(long_text.bytes()).number_below(1000), WireError);
  EXPECT_EQ(Unpacker(long_text.bytes()).number_below(1001), 1000);
}

Standing some_standing() {
  return {.phase = Phase::kSave,
          .step = 17,
          .in_phase_s = 1.5,
          .limit_s = 60,
          .collectives = {{.group = "world",
                           .sequence = 57,
                           .operation = "all_gather",
                           .bytes = 1 << 30,
                           .dtype = ops::Dtype::kBf16,
                           .peer = -1,
                           .inside = true,
                           .age_s = 1.25},
                          {.group = "world/1:0",
                           .sequence = 3,
                           .operation = "send",
                           .bytes = 0,
                           .dtype = ops::Dtype::kU8,
                           .peer = 2,
                           .inside = false,
                           .age_s = 0}}};
}

TEST(Wire, AStandingComesBack) {
  const std::string bytes = pack(some_standing());
  const Standing back = unpack_standing(bytes);
  EXPECT_EQ(describe(back), "in step 17, in the phase save");
  ASSERT_EQ(back.collectives.size(), 2u);
  EXPECT_EQ(describe(back.collectives[0]), "all_gather 57 of world (1073741824 bytes, bf16)");
  EXPECT_TRUE(back.collectives[0].inside);
  EXPECT_FALSE(back.collectives[1].inside);
  EXPECT_EQ(back.collectives[1].peer, 2);
  EXPECT_EQ(pack(back), bytes);
  for (size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_THROW(unpack_standing(std::string_view(bytes).substr(0, n)), WireError) << n;
  }
}

TEST(Wire, AVerdictComesBack) {
  const Verdict verdict = ended_by_error(3, ops::ExitCode::kDisk, "x.h5: full\nmore");
  const Verdict back = unpack_verdict(pack(verdict));
  EXPECT_EQ(back.code, ops::ExitCode::kPeerDied);
  EXPECT_EQ(back.cause, ops::ExitCode::kDisk);
  EXPECT_EQ(back.rank, 3);
  EXPECT_EQ(back.text, "rank 3 ended with code 23: x.h5: full");
}

TEST(Verdict, TheCauseWeighsMoreThanTheSymptom) {
  using enum ops::ExitCode;
  EXPECT_GT(weight(kGpu), weight(kNonFinite));
  EXPECT_GT(weight(kOutOfMemory), weight(kCorruption));
  EXPECT_GT(weight(kSelfTest), weight(kDisk));
  EXPECT_GT(weight(kConfig), weight(kInternal));
  EXPECT_GT(weight(kInternal), weight(kPeerDied));
  EXPECT_GT(weight(kInterrupted), weight(kPeerDied));
  EXPECT_GT(weight(kPeerDied), weight(kHang));
}

}  // namespace
}  // namespace qstep::parallel
