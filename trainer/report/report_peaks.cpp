#include "trainer/report/report_peaks.h"

namespace qstep::trainer::report {

MachineModel recorded_machine(const Run& run) {
  const Start start = run.last_start();
  MachineModel m;
  m.name = start.peak_machine;
  for (size_t i = 0; i < m.products.size(); ++i) {
    const auto found = start.peak_flops_per_s.find(std::string(kProductFormatNames[i]));
    if (found == start.peak_flops_per_s.end()) continue;
    m.products[i] = {.peak = found->second, .share = 1, .source = start.peak_source};
  }
  m.memory.peak = start.peak_memory_bytes_per_s;
  return m;
}

Json peaks_json(const Run& run) {
  const Start start = run.last_start();
  if (start.peak_flops_per_s.empty()) {
    return missing(start.peak_known ? "timing.peak was off, or the machine is a GPU that is not in "
                                      "the table of peaks"
                                    : "the run is of an older qstep, which recorded no peak rates");
  }
  Json json = {{"available", true},
               {"machine", start.peak_machine},
               {"source", start.peak_source},
               {"of", "a rank"},
               {"flops_per_s", Json::object()}};
  for (const auto& [format, rate] : start.peak_flops_per_s) json["flops_per_s"][format] = rate;
  const double memory = start.peak_memory_bytes_per_s;
  json["memory_bytes_per_s"] = memory > 0 ? Json(memory) : Json(nullptr);
  return json;
}

}  // namespace qstep::trainer::report
