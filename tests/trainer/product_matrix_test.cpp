// The table of doctor, of backends that answer as GPUs would.
#include "trainer/model/product_matrix.h"

#include <gtest/gtest.h>

#include <functional>

#include "tests/support/wrapped_ops.h"

namespace qstep::trainer {
namespace {

using ops::CodeProduct;
using ops::ScaleMode;
using precision::ElementFormat;

class AnsweringOps final : public test::WrappedOps {
 public:
  explicit AnsweringOps(std::function<bool(const CodeProduct&)> answer, bool bf16 = true)
      : answer_(std::move(answer)), bf16_(bf16) {}
  std::string_view name() const override { return "answers"; }
  ops::Buffer allocate(int64_t bytes) override { return inner_->allocate(bytes); }
  bool multiplies_codes(const CodeProduct& product) override { return answer_(product); }
  void gemm(const ops::Tensor& d, const ops::Operand& a, const ops::Operand& b, float alpha,
            ops::Accumulate accumulate, const ops::Tensor& bias) override {
    if (a.dtype == ops::Dtype::kBf16 && !bf16_) {
      throw ops::Error(ops::ExitCode::kGpu, "no kernel");
    }
    WrappedOps::gemm(d, a, b, alpha, accumulate, bias);
  }

 private:
  void run(std::string_view, const std::function<void()>& f) override { f(); }

  std::function<bool(const CodeProduct&)> answer_;
  bool bf16_;
};

std::string text(const std::vector<FormatRow>& rows, std::string_view format) {
  for (const FormatRow& row : rows) {
    if (row.format != format) continue;
    std::string all;
    for (const Runs runs : row.runs) all += std::string(name(runs)) + " ";
    return all;
  }
  return "";
}

constexpr std::string_view kNative = "native native native ";
constexpr std::string_view kEmulated = "emulated emulated emulated ";

TEST(ProductMatrix, SaysWhatTheLibrarySays) {
  AnsweringOps hopper([](const CodeProduct& p) {
    return p.a.scales != ScaleMode::kVec16 && p.a.scales != ScaleMode::kVec32;
  });
  const auto rows = product_matrix(hopper);
  EXPECT_EQ(kNative, text(rows, "bf16"));
  EXPECT_EQ(kNative, text(rows, "fp32"));
  EXPECT_EQ(kNative, text(rows, "fp8 e4m3"));
  EXPECT_EQ(kNative, text(rows, "fp8 1x128, 128x128"));
  EXPECT_EQ(kEmulated, text(rows, "mxfp8"));
  EXPECT_EQ(kEmulated, text(rows, "mxfp4"));
  EXPECT_EQ(kEmulated, text(rows, "nvfp4"));
}

TEST(ProductMatrix, TellsTheThreeProductsApart) {
  // Operands of e5m2 on the left: those of dgrad and wgrad.
  AnsweringOps ops([](const CodeProduct& p) { return p.a.element != ElementFormat::kE5m2; });
  EXPECT_EQ("native emulated emulated ", text(product_matrix(ops), "fp8 e4m3, dy e5m2"));
  AnsweringOps no_sums([](const CodeProduct& p) { return p.out != ops::Dtype::kF32; });
  EXPECT_EQ("native native emulated ", text(product_matrix(no_sums), "nvfp4"));
}

TEST(ProductMatrix, NeedsProductsOfTheComputeTypeToEmulate) {
  AnsweringOps none([](const CodeProduct&) { return false; }, false);
  const auto rows = product_matrix(none);
  EXPECT_EQ("unsupported unsupported unsupported ", text(rows, "nvfp4"));
  EXPECT_EQ("unsupported unsupported unsupported ", text(rows, "bf16"));
  EXPECT_EQ(kNative, text(rows, "fp32"));
}

}  // namespace
}  // namespace qstep::trainer
