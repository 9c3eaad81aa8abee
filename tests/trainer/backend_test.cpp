#include "trainer/backend.h"

#include <gtest/gtest.h>

namespace qstep::trainer {
namespace {

TEST(Backend, AProcessorIsNamedAlone) {
  Config config;
  for (const Device device : {Device::kCpu, Device::kAuto}) {
    config.run.device = device;
    EXPECT_EQ(backend_text(*ops::make_cpu_ops(), config), "cpu");
  }
}

TEST(Backend, ProcessorsAreThereForEveryRun) {
  for (const int n_ranks : {1, 4}) EXPECT_EQ(make_backend(Device::kCpu, n_ranks)->name(), "cpu");
}

TEST(Backend, SeveralRanksAreRefusedAGpu) {
  EXPECT_EQ(make_backend(Device::kAuto, 2)->name(), "cpu");
  try {
    (void)make_backend(Device::kCuda, 2);
    ADD_FAILURE() << "accepted";
  } catch (const ops::Error& e) {
    EXPECT_EQ(e.code(), ops::ExitCode::kGpu);
    EXPECT_NE(std::string_view(e.what()).find("2 ranks"), std::string_view::npos) << e.what();
  }
}

}  // namespace
}  // namespace qstep::trainer
