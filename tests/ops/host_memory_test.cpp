#include "ops/host_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "ops/error.h"

namespace qstep::ops {
namespace {

uint64_t address(const Buffer& buffer) { return reinterpret_cast<uint64_t>(buffer.data()); }

TEST(HostMemory, ComesInWholeAlignedPages) {
  for (const int64_t bytes : {0, 1, 4096, 4097, 5 << 20}) {
    const Buffer buffer = allocate_host(bytes);
    EXPECT_GE(buffer.bytes(), std::max<int64_t>(bytes, 1));
    EXPECT_LT(buffer.bytes(), std::max<int64_t>(bytes, 1) + 4096);
    EXPECT_EQ(buffer.bytes() % 4096, 0);
    EXPECT_EQ(address(buffer) % 4096, 0u);
    std::memset(buffer.data(), 1, static_cast<size_t>(buffer.bytes()));
  }
}

TEST(HostMemory, LargeBlocksBeginWithAHugePage) {
  EXPECT_EQ(address(allocate_host(4 << 20)) % (2 << 20), 0u);
}

// Who holds the rest and what to lower is said by those who know (trainer/step/out_of_memory.h).
TEST(HostMemory, SaysHowMuchThereIsNot) {
  try {
    allocate_host(int64_t{1} << 60);
    FAIL() << "more than any machine has";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kOutOfMemory);
    EXPECT_NE(std::string(error.what()).find("no 1073741824.00 GiB"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace qstep::ops
