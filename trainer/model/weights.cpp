#include "trainer/model/weights.h"

#include <numbers>

#include "ops/parallel_for.h"
#include "precision/philox.h"

namespace qstep::trainer {

namespace {

// Purpose of a Philox stream: the fourth counter word of all initial weights.
constexpr uint32_t kInitStream = 0x494E4954;  // "INIT"

// Two standard normals from four random words, 48 bits each pair used. Box and Muller 1958.
struct NormalPair {
  double a, b;
};
NormalPair normal_pair(uint32_t w0, uint32_t w1) {
  const double u = (static_cast<double>(w0) + 1.0) * 0x1p-32;  // (0, 1]
  const double v = static_cast<double>(w1) * 0x1p-32;
  const double radius = std::sqrt(-2.0 * std::log(u));
  const double angle = 2.0 * std::numbers::pi * v;
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

// Four consecutive elements share one Philox call.
void fill_normal(float* out, int64_t n, double std, uint64_t seed, uint32_t list_index) {
  ops::parallel_for((n + 3) / 4, [&](int64_t group) {
    const auto g = static_cast<uint64_t>(group);
    const auto words = precision::philox4x32(
        seed,
        {{static_cast<uint32_t>(g), static_cast<uint32_t>(g >> 32), list_index, kInitStream}});
    const NormalPair p = normal_pair(words.w[0], words.w[1]);
    const NormalPair q = normal_pair(words.w[2], words.w[3]);
    const double values[4] = {p.a, p.b, q.a, q.b};
    for (int64_t i = 0; i < 4 && group * 4 + i < n; ++i) {
      out[group * 4 + i] = static_cast<float>(std * values[i]);
    }
  });
}

}  // namespace

std::vector<WeightSpec> weight_list(const ModelConfig& model) {
  std::vector<WeightSpec> list;
  ModelWeights<char> unused;
  for_each_weight(model, unused, [&](const WeightSpec& spec, char&) { list.push_back(spec); });
  return list;
}

void init_weight(const ops::Tensor& weight, const WeightSpec& spec, uint64_t seed,
                 uint32_t list_index) {
  ops::expect_shape(weight, spec.rows, spec.cols, "init_weight");
  float* const out = weight.as<float>();
  const int64_t used = spec.used_rows * spec.cols;
  switch (spec.init) {
    case Init::kNormal:
      fill_normal(out, used, spec.std, seed, list_index);
      break;
    case Init::kZero:
      std::fill(out, out + used, 0.0f);
      break;
    case Init::kOne:
      std::fill(out, out + used, 1.0f);
      break;
  }
  std::fill(out + used, out + weight.size(), 0.0f);
}

}  // namespace qstep::trainer
