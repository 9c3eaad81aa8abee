#include "trainer/backend/backend.h"

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
  EXPECT_EQ(make_backend(Device::kCpu)->name(), "cpu");
}

}  // namespace
}  // namespace qstep::trainer
