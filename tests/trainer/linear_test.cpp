// The three GEMMs of a quantized linear layer against FP64 products of what its operands decode to.
#include "trainer/model/linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "precision/bf16.h"
#include "tests/support/compare.h"
#include "tests/support/test_name.h"
#include "tests/trainer/recipe_testing.h"
#include "trainer/model/model_precision.h"

namespace qstep::trainer::testing {
namespace {

using ops::Accumulate;
using ops::Dtype;
using ops::QuantizedTensor;
using ops::Tensor;
using precision::OperandSlot;
using precision::OperandTable;
using precision::QuantSpec;
using precision::Recipe;
using test::Guarded;

constexpr int64_t N = 128, O = 384, I = 128;  // qkv of recipe_model()
constexpr uint64_t kSeed = 11;
constexpr uint32_t kStep = 3;
constexpr uint64_t kMicro = 1;
constexpr auto kKind = LinearKind::kQkv;
constexpr int64_t kBlock = 1;

Config one_layer_config(const Recipe& recipe) {
  Config c = recipe_config(recipe, 1, 10);
  c.train.seed = kSeed;
  return c;
}

Recipe everywhere(Recipe recipe) {
  recipe.keep_first = recipe.keep_last = {};
  recipe.keep.clear();
  return recipe;
}

// What an operand stands for, in FP64, as a matrix [rows of the operand, k].
test::Matrix decoded(const QuantizedTensor& q, const Tensor& source) {
  const bool row = q.orientation == ops::Orientation::kRowwise;
  test::Matrix m(row ? source.rows : source.cols, row ? source.cols : source.rows);
  const ops::Operand tiles = q ? ops::operand(q) : ops::Operand{};
  for (int64_t r = 0; r < source.rows; ++r) {
    for (int64_t c = 0; c < source.cols; ++c) {
      const Tensor& t = q ? q.values : source;
      double value =
          static_cast<double>(precision::to_float(t.as<precision::Bf16>()[r * t.ld + c]));
      const int64_t n = row ? r : c, k = row ? c : r;
      if (tiles.scale != nullptr) {
        value *= static_cast<double>(*tiles.scale) / static_cast<double>(tiles.scale_denominator);
      }
      if (tiles.tile_scales != nullptr) {
        const int64_t per_row = (m.cols + tiles.tile_k - 1) / tiles.tile_k;
        value *= static_cast<double>(
            tiles.tile_scales[n / tiles.tile_rows * per_row + k / tiles.tile_k]);
      }
      m.at(n, k) = value;
    }
  }
  return m;
}

struct Product {
  std::vector<double> sum, sum_of_magnitudes;
};
// a [m, k] b [n, k]^T
Product product(const test::Matrix& a, const test::Matrix& b) {
  Product p;
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < b.rows; ++j) {
      double sum = 0, magnitudes = 0;
      for (int64_t k = 0; k < a.cols; ++k) {
        sum += a.at(i, k) * b.at(j, k);
        magnitudes += std::fabs(a.at(i, k) * b.at(j, k));
      }
      p.sum.push_back(sum);
      p.sum_of_magnitudes.push_back(magnitudes);
    }
  }
  return p;
}

// A layer of a model under a recipe, in the middle of a step.
class Layer {
 public:
  explicit Layer(const Recipe& recipe) : ops_(ops::make_cpu_ops()) {
    const Config c = one_layer_config(recipe);
    const PrecisionPlan plan = plan_precision(c);
    const auto lay_out = [&](ops::Arena& arena) {
      return PrecisionTensors::lay_out(arena, plan, c.model, N, Purpose::kTraining);
    };
    ops::Arena measure;
    lay_out(measure);
    buffer_ = ops_->allocate(std::max<int64_t>(64, measure.peak_bytes()));
    ops::Arena place(buffer_);
    PrecisionTensors tensors = lay_out(place);
    for (const std::vector<LinearTensors>& phase : tensors.phases) {
      phases_.push_back(phase[static_cast<size_t>(module_id(kBlock, kKind))]);
    }
    if (phases_.empty()) phases_.emplace_back();  // nothing is quantized
    precision_ = std::make_unique<ModelPrecision>(*ops_, plan, std::move(tensors), kSeed);
    test::Random random(71);
    x_.fill(random, -2, 2);
    w_.fill(random, -0.1, 0.1);
    dy_.fill(random, -1e-3, 1e-3);
    bias_.fill(random, -1, 1);
    x_.set(5, 7, 40.0);  // an outlier
    linear_ = Linear(w_, bias_, precision_->linear(kBlock, kKind));
    precision_->begin_step(*ops_, kStep, nullptr);
    precision_->begin_micro_batch(kMicro);
  }

  void forward() { linear_.forward(*ops_, y_, x_); }
  void backward() { linear_.backward(*ops_, dx_, dw_, db_, dy_, Accumulate::kNo); }

  const LinearTensors& tensors() const { return phases_.front(); }

  std::unique_ptr<ops::Ops> ops_;
  ops::Buffer buffer_;
  std::vector<LinearTensors> phases_;
  std::unique_ptr<ModelPrecision> precision_;
  Linear linear_;
  Guarded x_{Dtype::kBf16, N, I}, w_{Dtype::kBf16, O, I}, bias_{Dtype::kBf16, 1, O},
      dy_{Dtype::kBf16, N, O}, y_{Dtype::kBf16, N, O}, dx_{Dtype::kBf16, N, I},
      dw_{Dtype::kF32, O, I}, db_{Dtype::kF32, 1, O};
};

class LinearRecipe : public ::testing::TestWithParam<std::string> {
 protected:
  Recipe recipe() const { return everywhere(load_recipe(GetParam())); }
};

std::vector<std::string> bf16_compute_recipes() {
  std::vector<std::string> names;
  for (const std::string_view name : recipe_names()) {
    if (name != kFp32Recipe) names.emplace_back(name);
  }
  return names;
}

// FP32 sums of k terms in any order, the factors of both operands (at most three roundings, and two
// more per tile), one addition of the bias, one rounding of the result.
std::function<double(size_t)> gemm_bound(const Product& p, int64_t k, double bias, double store) {
  return [&p, k, bias, store](size_t i) {
    const double sum =
        (static_cast<double>(k) + 8) * test::kF32Roundoff * (p.sum_of_magnitudes[i] + bias);
    return sum + store * (std::fabs(p.sum[i]) + bias + sum);
  };
}

TEST_P(LinearRecipe, IsTheProductOfItsOperands) {
  Layer layer(recipe());
  const LinearTensors& t = layer.tensors();
  layer.forward();
  {
    const Product p = product(decoded(t.x.rowwise, layer.x_), decoded(t.w.rowwise, layer.w_));
    Product with_bias = p;
    const std::vector<double> bias = layer.bias_.values();
    for (size_t i = 0; i < p.sum.size(); ++i) with_bias.sum[i] += bias[i % bias.size()];
    test::expect_within(with_bias.sum, layer.y_.values(),
                        gemm_bound(p, I, 1.0, test::kBf16Roundoff), "fprop");
  }
  layer.backward();
  {
    QuantizedTensor dy = t.dy.rowwise, w = t.w.columnwise;
    dy.orientation = ops::Orientation::kRowwise;
    w.orientation = ops::Orientation::kColumnwise;
    const Product p = product(decoded(dy, layer.dy_), decoded(w, layer.w_));
    test::expect_within(p.sum, layer.dx_.values(), gemm_bound(p, O, 0, test::kBf16Roundoff),
                        "dgrad");
  }
  {
    QuantizedTensor dy = t.dy.columnwise, x = t.x.columnwise;
    dy.orientation = x.orientation = ops::Orientation::kColumnwise;
    const Product p = product(decoded(dy, layer.dy_), decoded(x, layer.x_));
    test::expect_within(p.sum, layer.dw_.values(), gemm_bound(p, N, 0, test::kF32Roundoff),
                        "wgrad");
  }
  // The bias gradient is that of dy itself.
  std::vector<double> db(static_cast<size_t>(O));
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t o = 0; o < O; ++o) db[static_cast<size_t>(o)] += layer.dy_.at(n, o);
  }
  test::expect_within(db, layer.db_.values(), test::Bound{0, N * test::kF32Roundoff * N * 1e-3},
                      "db");
}

// How far a recipe's layer is from the exact one, as a share of the result: E2M1 has two
// significant bits, E4M3 four.
TEST_P(LinearRecipe, IsNearTheExactLayer) {
  Layer exact(load_recipe("bf16")), layer(recipe());
  for (Layer* l : {&exact, &layer}) {
    l->forward();
    l->backward();
  }
  const auto relative_error = [](const Guarded& expected, const Guarded& found) {
    const std::vector<double> a = expected.values(), b = found.values();
    double error = 0, size = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      error += (a[i] - b[i]) * (a[i] - b[i]);
      size += a[i] * a[i];
    }
    return std::sqrt(error / size);
  };
  EXPECT_LT(relative_error(exact.y_, layer.y_), 0.35);
  EXPECT_LT(relative_error(exact.dx_, layer.dx_), 0.35);
  EXPECT_LT(relative_error(exact.dw_, layer.dw_), 0.35);
}

INSTANTIATE_TEST_SUITE_P(Shipped, LinearRecipe, ::testing::ValuesIn(bf16_compute_recipes()),
                         [](const auto& test) { return test::test_name(test.param); });

// dgrad reads the very codes of fprop where weights have square blocks, and other ones where they
// do not.
TEST(LinearWeights, SquareBlocksShareTheirCodes) {
  Layer square(everywhere(load_recipe("nvfp4")));
  EXPECT_EQ(square.tensors().w.rowwise.values.data, square.tensors().w.columnwise.values.data);
  square.forward();
  const test::Matrix row = decoded(square.tensors().w.rowwise, square.w_);
  const test::Matrix column = decoded(square.tensors().w.columnwise, square.w_);
  for (int64_t o = 0; o < O; ++o) {
    for (int64_t i = 0; i < I; ++i) ASSERT_EQ(row.at(o, i), column.at(i, o)) << o << " " << i;
  }
  Recipe lines = everywhere(load_recipe("nvfp4"));
  lines.operands[OperandSlot::kWFprop].block = lines.operands[OperandSlot::kWDgrad].block = {1, 16};
  const Layer separate(lines);
  EXPECT_NE(separate.tensors().w.rowwise.values.data, separate.tensors().w.columnwise.values.data);
}

// The transforms of both operands of wgrad cancel: with elements of four significant bits dw is as
// near to the exact one as without them. Signs or groups that did not match would leave nothing of
// it.
TEST(LinearHadamard, CancelsInTheWeightGradient) {
  Layer exact(load_recipe("bf16"));
  exact.forward();
  exact.backward();
  const std::vector<double> dw = exact.dw_.values();
  const auto relative_error = [&](int hadamard, precision::Signs signs) {
    Recipe recipe = everywhere(load_recipe("bf16"));
    for (const OperandSlot slot : {OperandSlot::kDyWgrad, OperandSlot::kXWgrad}) {
      QuantSpec& spec = recipe.operands[slot];
      spec = precision::default_spec(precision::QuantFormat::kMxfp8E4m3);
      spec.hadamard = hadamard;
      spec.signs = signs;
    }
    Layer layer(recipe);
    layer.forward();
    layer.backward();
    const std::vector<double> found = layer.dw_.values();
    double error = 0, size = 0;
    for (size_t i = 0; i < dw.size(); ++i) {
      error += (dw[i] - found[i]) * (dw[i] - found[i]);
      size += dw[i] * dw[i];
    }
    return std::sqrt(error / size);
  };
  // Each element of either operand is off by at most 2^-4 of itself, half of that on average and in
  // either direction: far below 2 * 2^-4 for a sum.
  constexpr double kBound = 0.0625;
  for (const int hadamard : {0, 16, 32, 64, 128}) {
    for (const precision::Signs signs :
         {precision::Signs::kFixed, precision::Signs::kPerLayer, precision::Signs::kPerStep}) {
      EXPECT_LT(relative_error(hadamard, signs), kBound)
          << hadamard << " " << precision::name(signs);
    }
  }
}

// A layer that the recipe keeps is the plain one, bit for bit.
TEST(LinearKept, IsThePlainLayer) {
  Recipe recipe = load_recipe("nvfp4");
  recipe.keep = {"blocks.*.qkv"};
  Layer plain(load_recipe("bf16")), kept(recipe);
  for (Layer* l : {&plain, &kept}) {
    l->forward();
    l->backward();
  }
  test::expect_same_bits(plain.y_, kept.y_, "y");
  test::expect_same_bits(plain.dx_, kept.dx_, "dx");
  test::expect_same_bits(plain.dw_, kept.dw_, "dw");
}

}  // namespace
}  // namespace qstep::trainer::testing
