// Phases that fail on some ranks end on all of them, for the same reason.
#include "trainer/base/agreement.h"

#include <gtest/gtest.h>

#include <new>

#include "ops/error.h"
#include "tests/support/thread_comm.h"
#include "tests/trainer/checkpoint_testing.h"

namespace qstep::trainer {
namespace {

using ops::Error;
using ops::ExitCode;
using parallel::Comm;
using test::run_ranks;
using testing::code_of;
using Texts = std::vector<std::string>;

TEST(Agreement, TellsAllTexts) {
  run_ranks(3, [](Comm& comm) {
    const auto own = [&] { return std::string(static_cast<size_t>(comm.rank()), '-'); };
    EXPECT_EQ((Texts{"", "-", "--"}), agree_texts(comm, own));
    EXPECT_EQ("", text_of_first_rank(comm, own));
  });
}

// What rank r throws; nothing for kOk.
void expect_on_all(const std::vector<ExitCode>& thrown, ExitCode code, const std::string& text) {
  run_ranks(static_cast<int>(thrown.size()), [&](Comm& comm) {
    const ExitCode own = thrown[static_cast<size_t>(comm.rank())];
    std::string found;
    EXPECT_EQ(code, code_of(
                        [&] {
                          agree(comm, [&] {
                            if (own != ExitCode::kOk) throw Error(own, "-1 is no size");
                          });
                        },
                        &found));
    EXPECT_EQ(text, found);
    agree(comm, [] {});  // and they are still together
  });
}

TEST(Agreement, AllThrowTheErrorOfTheFirst) {
  constexpr auto kOk = ExitCode::kOk, kDisk = ExitCode::kDisk;
  expect_on_all({kOk, kOk}, kOk, "");
  expect_on_all({kDisk}, kDisk, "-1 is no size");
  expect_on_all({kDisk, kOk}, kDisk, "rank 0: -1 is no size");
  expect_on_all({kOk, kDisk, ExitCode::kData}, kDisk, "rank 1: -1 is no size");
}

TEST(Agreement, TheCauseWinsOverTheSymptom) {
  expect_on_all({ExitCode::kPeerDied, ExitCode::kHang, ExitCode::kGpu}, ExitCode::kGpu,
                "rank 2: -1 is no size");
  expect_on_all({ExitCode::kOk, ExitCode::kHang}, ExitCode::kHang, "rank 1: -1 is no size");
}

TEST(Agreement, OtherExceptionsHaveCodesToo) {
  run_ranks(2, [](Comm& comm) {
    EXPECT_EQ(ExitCode::kOutOfMemory, code_of([&] {
                agree(comm, [&] {
                  if (comm.rank() == 1) throw std::bad_alloc();
                });
              }));
  });
}

TEST(Agreement, TheFirstRankDecidesAlone) {
  run_ranks(3, [](Comm& comm) {
    std::string text;
    EXPECT_EQ(ExitCode::kDisk, code_of(
                                   [&] {
                                     on_first_rank(comm, [&] {
                                       EXPECT_EQ(0, comm.rank());
                                       throw Error(ExitCode::kDisk, "full");
                                     });
                                   },
                                   &text));
    EXPECT_EQ("full", text);
  });
}

}  // namespace
}  // namespace qstep::trainer
