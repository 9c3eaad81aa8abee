#include "trainer/config/recipe_groups.h"

#include <algorithm>

namespace qstep::trainer {

std::vector<PhaseGroups> groups_of(const Config& config) {
  PrecisionPlan plan = plan_precision(config);
  if (plan.phases.empty()) {
    plan.phases.push_back({.first_step = 1, .tables = {}});
    plan.phases[0].tables.resize(static_cast<size_t>(n_modules(config.model)));
  }
  std::vector<PhaseGroups> phases;
  for (size_t p = 0; p < plan.phases.size(); ++p) {
    PhaseGroups& phase = phases.emplace_back();
    phase.first_step = plan.phases[p].first_step;
    phase.last_step =
        p + 1 < plan.phases.size() ? plan.phases[p + 1].first_step - 1 : config.train.steps;
    const auto& tables = plan.phases[p].tables;
    for (size_t module = 0; module < tables.size(); ++module) {
      auto group = std::find_if(phase.groups.begin(), phase.groups.end(),
                                [&](const LayerGroup& g) { return g.table == tables[module]; });
      if (group == phase.groups.end()) {
        group = phase.groups.insert(phase.groups.end(), LayerGroup{tables[module], {}});
      }
      group->modules.push_back(static_cast<int64_t>(module));
    }
  }
  return phases;
}

}  // namespace qstep::trainer
