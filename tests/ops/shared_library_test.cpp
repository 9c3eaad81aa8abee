#include "ops/cuda/shared_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "ops/error.h"

namespace qstep::ops {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string gpu_error(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(ExitCode::kGpu, e.code());
    return e.what();
  }
  ADD_FAILURE() << "no Error";
  return "";
}

TEST(SharedLibrary, FindsAFunctionInTheFirstFileThatOpens) {
  const SharedLibrary library({"libqstep_no_such.so.1", "libm.so.6"}, "part of the C library");
  double (*cosine)(double) = nullptr;
  library.find(cosine, "cos");
  ASSERT_NE(nullptr, cosine);
  EXPECT_EQ(std::cos(0.5), cosine(0.5));
}

TEST(SharedLibrary, AMissingOneIsNamedWithTheWayOut) {
  EXPECT_THAT(gpu_error([] {
                SharedLibrary({"libqstep_no_such.so.2", "libqstep_no_such.so.1"}, "ask its maker");
              }),
              AllOf(HasSubstr("libqstep_no_such.so.2"), HasSubstr("ask its maker"),
                    HasSubstr("LD_LIBRARY_PATH")));
}

TEST(SharedLibrary, AMissingFunctionIsNamed) {
  const SharedLibrary library({"libm.so.6"}, "part of the C library");
  double (*f)(double) = nullptr;
  EXPECT_THAT(gpu_error([&] { library.find(f, "qstep_no_such"); }),
              AllOf(HasSubstr("libm.so.6"), HasSubstr("qstep_no_such"), HasSubstr("newer")));
}

}  // namespace
}  // namespace qstep::ops
