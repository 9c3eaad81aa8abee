// Lines read without a tree say what a JSON parser says, or are left to it.
#include "trainer/base/flat_row.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/compare.h"

namespace qstep::trainer::report::testing {
namespace {

TEST(FlatRow, ReadsWhatRowsOfRanksAreMadeOf) {
  FlatRow row;
  const std::string line =
      R"({"type":"gemm","step":10,"ms":41.25,"small":-2.5e-07,"emulated":true,"tflops":null,"op":""})";
  ASSERT_TRUE(row.parse(line));
  EXPECT_EQ("gemm", flat_value<std::string>(row.value("type")));
  EXPECT_EQ(10, flat_value<int64_t>(row.value("step")));
  EXPECT_EQ(41.25, flat_value<double>(row.value("ms")));
  EXPECT_EQ(10.0, flat_value<double>(row.value("step")));
  EXPECT_EQ(-2.5e-7, flat_value<double>(row.value("small")));
  EXPECT_EQ(true, flat_value<bool>(row.value("emulated")));
  EXPECT_EQ("null", row.value("tflops"));
  EXPECT_EQ("", flat_value<std::string>(row.value("op")));
  EXPECT_TRUE(row.value("nothing").empty());
  EXPECT_FALSE(flat_value<int64_t>(row.value("ms")));
  EXPECT_FALSE(flat_value<std::string>(row.value("step")));
  EXPECT_FALSE(flat_value<double>(row.value("op")));
  EXPECT_FALSE(flat_value<bool>(row.value("step")));
}

TEST(FlatRow, LeavesTheRestToAParser) {
  FlatRow row;
  for (const char* line : {R"({"a":[1]})",
                           R"({"a":{"b":1}})",
                           R"({"a":"x\ny"})",
                           R"({ "a":1})",
                           R"({"a":1},)",
                           R"({"a":01})",
                           R"({"a":1.})",
                           R"({"a":.5})",
                           R"({"a":+1})",
                           R"({"a":nan})",
                           R"({"a":1e})",
                           R"({"a":"\xc3\xa9"})",
                           R"({"a":1,})",
                           R"({"a"})",
                           R"({"a":})",
                           R"({})",
                           R"({)",
                           R"({"a":1)",
                           R"({"a":"x})",
                           R"([1])",
                           R"({"a":1}})",
                           R"({"a":tru})",
                           "",
                           "}"}) {
    EXPECT_FALSE(row.parse(line)) << line;
  }
}

// Random damage to a line: whatever is accepted is JSON with the same values.
TEST(FlatRow, AcceptsNothingThatIsNotJson) {
  const std::string whole =
      R"({"type":"comm","step":120,"group":"data","bytes":24000000,"total_ms":55.125,"x":-1e3,"y":false})";
  test::Random random(77);
  int accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string line = whole;
    for (int64_t n = random.integer(1, 3); n > 0; --n) {
      const auto at = static_cast<size_t>(random.integer(0, std::ssize(line) - 1));
      constexpr std::string_view kChars = R"({}[]",:0123456789.-+eEtfn x)";
      line[at] = kChars[static_cast<size_t>(random.integer(0, std::ssize(kChars) - 1))];
    }
    FlatRow row;
    if (!row.parse(line)) continue;
    ++accepted;
    const auto json = nlohmann::json::parse(line, nullptr, false);
    ASSERT_TRUE(json.is_object()) << line;
    for (const auto& [key, value] : json.items()) {
      ASSERT_EQ(value, nlohmann::json::parse(row.value(key))) << line << " " << key;
    }
  }
  EXPECT_GT(accepted, 1000);
}

}  // namespace
}  // namespace qstep::trainer::report::testing
