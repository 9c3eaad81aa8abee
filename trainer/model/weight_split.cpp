#include "trainer/model/weight_split.h"

#include <numeric>

namespace qstep::trainer {

namespace {

bool is_split(const WeightSpec& spec, int tensor) {
  return spec.split != TensorSplit::kNone && tensor > 1;
}

int64_t share(const WeightSpec& spec, int64_t section, int tensor) {
  ops::check(section % tensor == 0, fmt::format("{}: a section of {} cannot be shared out to {}",
                                                spec.name, section, tensor));
  return section / tensor;
}

}  // namespace

LocalShape local_shape(const WeightSpec& spec, int tensor) {
  if (!is_split(spec, tensor)) return {spec.rows, spec.cols};
  int64_t local = 0;
  for (const int64_t section : spec.sections) local += share(spec, section, tensor);
  return spec.split == TensorSplit::kRows ? LocalShape{local, spec.cols}
                                          : LocalShape{spec.rows, local};
}

std::vector<LocalBlock> local_blocks(const WeightSpec& spec, const TensorPlace& place) {
  if (!is_split(spec, place.size)) return {{0, 0, spec.rows, spec.cols, 0}};
  const bool by_rows = spec.split == TensorSplit::kRows;
  ops::check_equal(by_rows ? spec.rows : spec.cols,
                   std::accumulate(spec.sections.begin(), spec.sections.end(), int64_t{0}),
                   spec.name + ": sections of the cut dimension");
  // The columns of several sections would lie in turns.
  ops::check(by_rows || spec.rows == 1 || spec.sections[1] == 0,
             spec.name + ": columns in more than one section");
  std::vector<LocalBlock> blocks;
  int64_t section_first = 0, first = 0;
  for (const int64_t section : spec.sections) {
    if (section == 0) break;
    const int64_t n = share(spec, section, place.size);
    const int64_t begin = section_first + place.rank * n;
    blocks.push_back(by_rows ? LocalBlock{begin, 0, n, spec.cols, first}
                             : LocalBlock{0, begin, spec.rows, n, first});
    section_first += section;
    first += blocks.back().size();
  }
  return blocks;
}

}  // namespace qstep::trainer
