// What a profiler hears of a step: this program attaches one to itself (NVTX, static injection:
// a pointer with a given name, to a function that the first range calls for its callbacks).
#include <gtest/gtest.h>
#include <nvtx3/nvToolsExt.h>

#include <string>
#include <vector>

#include "trainer/timing/timeline.h"

namespace {

std::vector<std::string>& heard() {
  static std::vector<std::string> texts;
  return texts;
}

// Domains are numbered names.
std::vector<std::string>& domains() {
  static std::vector<std::string> names;
  return names;
}
const std::string& name_of(nvtxDomainHandle_t domain) {
  return domains().at(reinterpret_cast<uintptr_t>(domain) - 1);
}

nvtxDomainHandle_t create(const char* name) {
  domains().emplace_back(name);
  return reinterpret_cast<nvtxDomainHandle_t>(domains().size());
}
int push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t* range) {
  heard().push_back(name_of(domain) + ": " + range->message.ascii + " " +
                    std::to_string(range->payload.llValue));
  return 0;
}
int pop(nvtxDomainHandle_t domain) {
  heard().push_back(name_of(domain) + ": end");
  return 0;
}

template <class F>
void set(NvtxFunctionTable table, int id, F* f) {
  *table[id] = reinterpret_cast<NvtxFunctionPointer>(f);
}

int attach(NvtxGetExportTableFunc_t get_table) {
  const auto* const callbacks =
      static_cast<const NvtxExportTableCallbacks*>(get_table(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable table = nullptr;
  unsigned size = 0;
  callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size);
  set(table, NVTX_CBID_CORE2_DomainCreateA, create);
  set(table, NVTX_CBID_CORE2_DomainRangePushEx, push);
  set(table, NVTX_CBID_CORE2_DomainRangePop, pop);
  return 1;
}

const bool attached = (InitializeInjectionNvtx2_fnptr = attach) != nullptr;

}  // namespace

namespace qstep::trainer::testing {
namespace {

TEST(ProfilerRanges, NameStepsAndPhases) {
  ASSERT_TRUE(attached);
  Timeline timeline;
  heard().clear();
  timeline.start(17);
  timeline.enter(Phase::kForward);
  timeline.wait(Category::kTpComm, [] {});  // inside the phase
  timeline.enter(Phase::kForward);
  timeline.enter(Phase::kBackward);
  timeline.stop();
  EXPECT_EQ((std::vector<std::string>{"qstep steps: step 17", "qstep phases: other -1",
                                      "qstep phases: end", "qstep phases: forward -1",
                                      "qstep phases: end", "qstep phases: backward -1",
                                      "qstep phases: end", "qstep steps: end"}),
            heard());
}

TEST(ProfilerRanges, OneStretchFollowsTheOther) {
  {
    ops::ProfilerRange range("row");
    heard().clear();
    range.begin("qkv fprop", 3);
    range.begin("attention", 3);
    range.end();
    range.end();
    range.begin("norm", -1);
  }
  EXPECT_EQ((std::vector<std::string>{"row: qkv fprop 3", "row: end", "row: attention 3",
                                      "row: end", "row: norm -1", "row: end"}),
            heard());
}

}  // namespace
}  // namespace qstep::trainer::testing
