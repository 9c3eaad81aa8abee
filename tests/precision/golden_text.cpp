#include "tests/precision/golden_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "tests/support/quant_reference_formats.h"

namespace qstep::test {

namespace {

using precision::BlockShape;
using precision::FourOverSix;
using precision::QuantFormat;
using precision::QuantSpec;
using precision::Rounding;
using precision::ScaleRule;
using Values = std::vector<float>;

// The appendix' inputs: xorshift32, the sum of its four bytes around zero, in BF16.
Values testvec(int n, uint32_t state = 1, float scale = 1.0f) {
  Values values;
  for (int i = 0; i < n; ++i) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    int sum = -512;
    for (int byte = 0; byte < 4; ++byte) sum += static_cast<int>(state >> (8 * byte) & 0xFFu);
    values.push_back(reference::bf16(static_cast<float>(sum) * (scale / 128.0f)));
  }
  return values;
}

Values part(const Values& x, size_t first, size_t n) {
  const auto begin = x.begin() + static_cast<std::ptrdiff_t>(first);
  return {begin, begin + static_cast<std::ptrdiff_t>(n)};
}

template <class Range>
std::string hex(const Range& codes, int width) {
  std::string text;
  for (const auto code : codes) {
    text += fmt::format("{}{:0{}X}", text.empty() ? "" : " ", static_cast<uint32_t>(code), width);
  }
  return text;
}

std::string hex(float x) { return fmt::format("{:08X}", std::bit_cast<uint32_t>(x)); }

template <class Range>
std::string hex_bf16(const Range& values) {
  std::vector<uint32_t> upper;
  for (const float v : values) upper.push_back(std::bit_cast<uint32_t>(v) >> 16);
  return hex(upper, 4);
}

std::vector<uint8_t> codes_of(const GoldenOperand& q, size_t first, size_t n) {
  const auto begin = q.codes.begin() + static_cast<std::ptrdiff_t>(first);
  return {begin, begin + static_cast<std::ptrdiff_t>(n)};
}

QuantSpec spec(QuantFormat format, BlockShape block, ScaleRule scale) {
  QuantSpec s;
  s.format = format;
  s.block = block;
  s.scale = scale;
  return s;
}

const QuantSpec kNvfp4 = spec(QuantFormat::kNvfp4, {1, 16}, ScaleRule::kE4m3);

class Text {
 public:
  explicit Text(GoldenImplementation& implementation) : of_(implementation) {
    const Values zeros(8, 0.0f), negative_zeros(8, -0.0f);
    x_ = testvec(32);
    x_.insert(x_.end(), zeros.begin(), zeros.end());
    x_.insert(x_.end(), negative_zeros.begin(), negative_zeros.end());
    for (const float v : testvec(16, 7)) x_.push_back(reference::bf16(v * 0x1p-22f));
    amax_ = largest(x_);
  }

  std::string run() {
    line("R6 = {}", hex(1.0f / 6.0f));
    nvfp4();
    hadamard();
    four_over_six();
    mx();
    fp8();
    square_block();
    swizzle();
    philox();
    stochastic();
    return text_;
  }

 private:
  template <class... Args>
  void line(fmt::format_string<Args...> format, Args&&... args) {
    text_ += fmt::format(format, std::forward<Args>(args)...) + "\n";
  }

  static float largest(const Values& x) {
    float amax = 0;
    for (const float v : x) amax = std::max(amax, std::fabs(v));
    return amax;
  }

  GoldenOperand row(const Values& x, const QuantSpec& s, const ops::QuantRandom& random = {}) {
    return of_.quantize(x, 1, static_cast<int64_t>(x.size()), s, random);
  }

  void nvfp4() {
    line("G1 x(bf16 hex): {}", hex_bf16(x_));
    const auto f = of_.nvfp4_factors(amax_);
    const GoldenOperand q = row(x_, kNvfp4);
    line("G1 amax={} S_enc={} S_dec={} mult={}", q.scale, hex(f.s_enc), hex(f.s_dec), hex(f.mult));
    for (size_t b = 0; b < 4; ++b) {
      const std::vector<uint8_t> codes = codes_of(q, 16 * b, 16);
      std::vector<uint32_t> packed;
      for (size_t i = 0; i < 16; i += 2) packed.push_back(codes[i] | codes[i + 1] << 4);
      line("G1 block{} s={:02X} enc={} codes={} packed={}", b, q.block_scales[b],
           hex(of_.nvfp4_enc(q.block_scales[b], f.s_dec)), hex(codes, 1), hex(packed, 2));
    }
  }

  void hadamard() {
    std::array<float, 16> block{};
    std::copy_n(x_.begin(), 16, block.begin());
    line("G2 rht16(block0) bf16: {}", hex_bf16(of_.hadamard16(block)));
    QuantSpec s = kNvfp4;
    s.hadamard = 16;
    const GoldenOperand q = row(part(x_, 0, 16), s);
    const auto f = of_.nvfp4_factors(q.scale);
    line("G2 amax={} s={:02X} enc={} codes={}", q.scale, q.block_scales[0],
         hex(of_.nvfp4_enc(q.block_scales[0], f.s_dec)), hex(q.codes, 1));
  }

  void four_over_six() {
    for (size_t b = 0; b < 2; ++b) {
      for (const int e4m3_max : {256, 448}) {
        for (const auto& [mode, mode_name] :
             {std::pair{FourOverSix::kMae, "MAE"}, {FourOverSix::kMse, "MSE"}}) {
          QuantSpec s = kNvfp4;
          s.four_over_six = mode;
          s.e4m3_max = e4m3_max;
          const GoldenOperand q = row(x_, s);
          const bool four = of_.maps_to_four(part(x_, 16 * b, 16), amax_, s);
          line("G3 block{} e4m3max={} {}: map{} s={:02X} codes={}", b, e4m3_max, mode_name,
               four ? 4 : 6, q.block_scales[b], hex(codes_of(q, 16 * b, 16), 1));
        }
      }
    }
  }

  void mx() {
    for (const auto& [format, format_name] :
         {std::pair{QuantFormat::kMxfp8E4m3, "e4m3"}, {QuantFormat::kMxfp8E5m2, "e5m2"}}) {
      const GoldenOperand q = row(part(x_, 0, 32), spec(format, {1, 32}, ScaleRule::kPow2Up));
      line("G4 mxfp8 {} e8m0={:02X} codes={}", format_name, q.block_scales[0], hex(q.codes, 2));
    }
  }

  void fp8() {
    for (const bool pow2 : {false, true}) {
      const GoldenOperand q = row(
          x_, spec(QuantFormat::kFp8E4m3, {0, 0}, pow2 ? ScaleRule::kFp32Pow2 : ScaleRule::kFp32));
      line("G5 fp8 cs pow2={} scale={} scale_inv={} codes={}", pow2 ? 1 : 0,
           hex(of_.fp8_scale(amax_, pow2)), hex(q.scale), hex(codes_of(q, 0, 16), 2));
    }
  }

  // Beside the block lies one with twice its amax, so that the tensor's is that.
  void square_block() {
    const Values w = testvec(256, 3, 0.02f);
    Values x(512, 0.0f);
    for (size_t i = 0; i < 256; ++i) x[i / 16 * 32 + i % 16] = w[i];
    x[16] = 2 * largest(w);
    const GoldenOperand q =
        of_.quantize(x, 16, 32, spec(QuantFormat::kNvfp4, {16, 16}, ScaleRule::kE4m3), {});
    const auto f = of_.nvfp4_factors(q.scale);
    line("G6 w16x16 (global amax = 2x block amax) s={:02X} enc={} row0={} row15={}",
         q.block_scales[0], hex(of_.nvfp4_enc(q.block_scales[0], f.s_dec)),
         hex(codes_of(q, 0, 16), 1), hex(codes_of(q, 15 * 32, 16), 1));
  }

  void swizzle() {
    std::vector<int64_t> offsets;
    for (const auto& [row, col] :
         {std::pair{0, 0}, {0, 3}, {0, 4}, {1, 0}, {31, 0}, {32, 0}, {33, 1}, {127, 3}, {128, 0}}) {
      offsets.push_back(of_.swizzled_offset(row, col, 8));
    }
    line("G7 swizzle [{}]", fmt::join(offsets, ", "));
  }

  void philox() {
    constexpr uint32_t kOnes = 0xFFFFFFFFu;
    line("G8 philox zero {}", hex(of_.philox({0, 0, 0, 0}, {0, 0}), 8));
    line("G8 philox ones {}", hex(of_.philox({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}), 8));
    line("G8 philox pi {}",
         hex(of_.philox({0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344}, {0xA4093822, 0x299F31D0}),
             8));
    for (const uint64_t block : {uint64_t{0}, uint64_t{1}, uint64_t{5000000000}}) {
      line("G8 bytes block={}: {}", block, hex(of_.element_bytes(kRandom, block), 2));
    }
  }

  void stochastic() {
    QuantSpec s = kNvfp4;
    s.rounding = Rounding::kStochastic;
    const GoldenOperand q = row(x_, s, kRandom);
    for (size_t b = 0; b < 2; ++b) {
      line("G8 sr(G1 block{}) s={:02X} codes={}", b, q.block_scales[b],
           hex(codes_of(q, 16 * b, 16), 1));
    }
    for (const char* x :
         {"0.1", "0.75", "1.75", "2.5", "4.5", "5.0", "5.999", "6.375", "-0.1", "-5.0", "-0.0"}) {
      std::vector<uint8_t> codes;
      for (const int r : {0, 1, 64, 127, 128, 192, 255}) {
        codes.push_back(of_.stochastic_e2m1(std::stof(x), static_cast<uint8_t>(r)));
      }
      line("G8 sr {}: {}", x, hex(codes, 1));
    }
  }

  static constexpr ops::QuantRandom kRandom{.seed = 0x0123456789ABCDEF,
                                            .step = 1000,
                                            .micro_batch = 0,
                                            .module = 0x25,
                                            .slot = 0,
                                            .gemm_row = 0,
                                            .gemm_column = 0};
  GoldenImplementation& of_;
  Values x_;
  float amax_ = 0;
  std::string text_;
};

}  // namespace

std::string golden_text(GoldenImplementation& implementation) { return Text(implementation).run(); }

}  // namespace qstep::test
