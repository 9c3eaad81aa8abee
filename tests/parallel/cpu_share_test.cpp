#include "parallel/cpu_share.h"

#include <gtest/gtest.h>
#include <sched.h>

#include "ops/error.h"
#include "parallel/world.h"

namespace qstep::parallel {
namespace {

std::vector<int> shares(const std::vector<std::string>& lists) {
  std::vector<std::vector<int>> cpus;
  for (const std::string& list : lists) cpus.push_back(parse_cpu_list(list));
  std::vector<int> found;
  for (size_t i = 0; i < cpus.size(); ++i) found.push_back(share_of_cpus(cpus, i));
  return found;
}

TEST(CpuShare, ReadsListsOfTheKernel) {
  EXPECT_EQ((std::vector<int>{0, 1, 2, 3, 8, 10, 11}), parse_cpu_list("0-3,8,10-11"));
  EXPECT_EQ(std::vector<int>{}, parse_cpu_list(""));
  for (const std::string list : {"a", "1-", "1;2", "-3"}) {
    EXPECT_THROW(parse_cpu_list(list), ops::Error) << list;
  }
}

TEST(CpuShare, DividesWhatIsShared) {
  EXPECT_EQ((std::vector<int>{16}), shares({"0-15"}));
  EXPECT_EQ((std::vector<int>{1, 1}), shares({"0-1", "0-1"}));             // no binding
  EXPECT_EQ((std::vector<int>{8, 8}), shares({"0-7", "8-15"}));            // bound to cores
  EXPECT_EQ((std::vector<int>{4, 4, 8}), shares({"0-7", "0-7", "8-15"}));  // to sockets
  EXPECT_EQ((std::vector<int>{5, 5, 5}), shares({"0-15", "0-15", "0-15"}));
  EXPECT_EQ((std::vector<int>{1, 1, 1}), shares({"0-2", "0-2", "0-2"}));  // three thirds, thrice
  EXPECT_EQ((std::vector<int>{1, 1, 1}), shares({"0-1", "0-1", "0-1"}));  // more ranks than CPUs
}

TEST(CpuShare, OneProcessHasAllItMayUse) {
  cpu_set_t allowed;
  ASSERT_EQ(0, sched_getaffinity(0, sizeof allowed, &allowed));
  EXPECT_EQ(static_cast<size_t>(CPU_COUNT(&allowed)), parse_cpu_list(allowed_cpus()).size());
  EXPECT_EQ(CPU_COUNT(&allowed), cpu_share(*make_single()));
  EXPECT_FALSE(machine_id().empty());
}

}  // namespace
}  // namespace qstep::parallel
