#include <nvtx3/nvToolsExt.h>

#include "ops/profiler_range.h"

namespace qstep::ops {

// Ranges of a domain of its own lie in a row, and on a stack, of their own. A domain stays: another
// object may have the same one.
ProfilerRange::ProfilerRange(const char* row) : row_(nvtxDomainCreateA(row)) {}
ProfilerRange::~ProfilerRange() { end(); }

void ProfilerRange::begin(std::string_view name, int64_t number) {
  end();
  nvtxEventAttributes_t range{};
  range.version = NVTX_VERSION;
  range.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  range.messageType = NVTX_MESSAGE_TYPE_ASCII;
  range.message.ascii = name.data();
  range.payloadType = NVTX_PAYLOAD_TYPE_INT64;
  range.payload.llValue = number;
  nvtxDomainRangePushEx(static_cast<nvtxDomainHandle_t>(row_), &range);
  open_ = true;
}

void ProfilerRange::end() {
  if (open_) nvtxDomainRangePop(static_cast<nvtxDomainHandle_t>(row_));
  open_ = false;
}

}  // namespace qstep::ops
