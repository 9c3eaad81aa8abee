#include "precision/quant_spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

namespace qstep::precision {

namespace {

constexpr BlockShape kTensorBlock{0, 0};
constexpr std::array<BlockShape, 2> kNvfp4Blocks{{{1, 16}, {16, 16}}};
constexpr std::array<BlockShape, 2> kMxBlocks{{{1, 32}, {32, 32}}};
constexpr std::array<BlockShape, 3> kFp8Blocks{{kTensorBlock, {1, 128}, {128, 128}}};
constexpr std::array kNvfp4Scales{ScaleRule::kE4m3, ScaleRule::kE4m3TwoRounding};
constexpr std::array kMxScales{ScaleRule::kPow2Up, ScaleRule::kPow2Floor};
constexpr std::array kFp8Scales{ScaleRule::kFp32, ScaleRule::kFp32Pow2};
constexpr std::array kHadamardSizes{0, 16, 32, 64, 128};

// What a format's blocks and scales may be; the first is the default.
std::span<const BlockShape> blocks_of(QuantFormat format) {
  if (format == QuantFormat::kBf16) return {&kTensorBlock, 1};
  if (format == QuantFormat::kNvfp4) return kNvfp4Blocks;
  if (is_mx_format(format)) return kMxBlocks;
  return kFp8Blocks;
}
std::span<const ScaleRule> scales_of(QuantFormat format) {
  if (format == QuantFormat::kNvfp4) return kNvfp4Scales;
  if (is_mx_format(format)) return kMxScales;
  return kFp8Scales;
}

template <class E>
std::string joined_names(std::span<const E> values) {
  std::string text;
  for (const E& value : values) text += fmt::format("{}{}", text.empty() ? "" : ", ", name(value));
  return text;
}

template <class Range, class T>
bool contains(const Range& range, const T& value) {
  return std::find(range.begin(), range.end(), value) != range.end();
}

// Fields whose rules name one format or one other field, in the order of the struct.
class Checker {
 public:
  explicit Checker(const QuantSpec& spec) : s_(spec), format_(name(spec.format)) {}

  std::vector<std::string> run() {
    if (!s_.quantized()) {
      unquantized();
    } else {
      block_and_scale();
      rounding();
      hadamard();
      nvfp4_options();
      headroom();
      amax();
    }
    return std::move(problems_);
  }

 private:
  template <class... Args>
  void require(bool holds, fmt::format_string<Args...> text, Args&&... args) {
    if (!holds) problems_.push_back(fmt::format(text, std::forward<Args>(args)...));
  }

  bool nvfp4() const { return s_.format == QuantFormat::kNvfp4; }
  bool ms_eden() const { return s_.rounding == Rounding::kMsEden; }
  bool four_over_six() const { return s_.four_over_six != FourOverSix::kNone; }

  void unquantized() {
    QuantSpec plain;
    plain.source = s_.source;
    require(s_ == plain, "bf16 is not quantized and takes no other field");
    require(s_.source == Source::kHighPrecision, "bf16 takes no source = \"forward\"");
  }

  void block_and_scale() {
    require(contains(blocks_of(s_.format), s_.block), "{} has no block {}: write one of {}",
            format_, name(s_.block), joined_names(blocks_of(s_.format)));
    require(contains(scales_of(s_.format), s_.scale), "{} has no scale {}: write one of {}",
            format_, name(s_.scale), joined_names(scales_of(s_.format)));
    require(s_.scale != ScaleRule::kE4m3TwoRounding || (!ms_eden() && !four_over_six()),
            "{} has its own order of roundings: leave scale = \"e4m3-two-rounding\" out",
            ms_eden() ? "ms-eden" : "four_over_six");
  }

  void rounding() {
    require(s_.rounding != Rounding::kStochastic || nvfp4() || s_.format == QuantFormat::kMxfp4,
            "{} is not rounded stochastically: only nvfp4 and mxfp4 are", format_);
    require(s_.rounding == Rounding::kNearest || !s_.block.square(),
            "square blocks hold the same codes for both orientations and are rounded to nearest, "
            "not {}",
            name(s_.rounding));
    if (!ms_eden()) return;
    require(nvfp4(), "{} has no ms-eden: only nvfp4 has", format_);
    require(
        s_.hadamard > 0,
        "ms-eden corrects the scales of a Hadamard group: write hadamard = 128 (or 16, 32, 64)");
    require(!four_over_six(), "ms-eden takes no four_over_six");
    require(s_.headroom == Headroom::kNone, "ms-eden has its own headroom: leave headroom out");
    require(s_.e4m3_max == 448, "ms-eden has its own largest scale: leave e4m3_max out");
    require(s_.amax == AmaxScope::kTensor, "ms-eden takes amax = \"tensor\" only");
  }

  void hadamard() {
    require(contains(kHadamardSizes, s_.hadamard), "hadamard = {} is not one of {}", s_.hadamard,
            fmt::join(kHadamardSizes, ", "));
    if (s_.hadamard == 0) {
      require(s_.signs == Signs::kFixed, "signs = \"{}\" without hadamard", name(s_.signs));
      return;
    }
    require(!s_.block.square(),
            "square blocks are transposed, which a Hadamard transform along k does not allow: "
            "leave hadamard out");
    require(!s_.block.whole_tensor(),
            "one scale for the tensor is shared by both orientations: leave hadamard out");
  }

  void nvfp4_options() {
    require(!four_over_six() || nvfp4(), "{} takes no four_over_six: only nvfp4 does", format_);
    require(!four_over_six() || s_.amax != AmaxScope::kGroup128,
            "four_over_six takes amax = \"tensor\" or \"row\", not \"group-128\"");
    require(s_.e4m3_max == 448 || s_.e4m3_max == 256, "e4m3_max = {} is not 448 or 256",
            s_.e4m3_max);
    require(s_.e4m3_max == 448 || nvfp4(), "{} takes no e4m3_max: only nvfp4 does", format_);
  }

  void headroom() {
    require(s_.headroom != Headroom::kThreeQuarters || s_.format == QuantFormat::kMxfp4,
            "{} takes no headroom 3/4: only mxfp4 does", format_);
    require(s_.headroom != Headroom::kSixteenSeventeenths || nvfp4(),
            "{} takes no headroom 16/17: only nvfp4 does", format_);
    require(s_.headroom != Headroom::kSixteenSeventeenths || !four_over_six(),
            "four_over_six maps the amax of a block itself: leave headroom out");
  }

  void amax() {
    const bool per_tensor = is_fp8_format(s_.format) && s_.block.whole_tensor();
    const bool lines = nvfp4() && s_.block == BlockShape{1, 16};
    require(s_.amax != AmaxScope::kDelayed || per_tensor,
            "amax = \"delayed\" is for fp8 with one scale per tensor, not for {} {}", format_,
            name(s_.block));
    require(s_.amax != AmaxScope::kRow || per_tensor || lines,
            "amax = \"row\" is for nvfp4 1x16 and fp8 tensor, not for {} {}", format_,
            name(s_.block));
    require(s_.amax != AmaxScope::kGroup128 || lines,
            "amax = \"group-128\" is for nvfp4 1x16, not for {} {}", format_, name(s_.block));
    const bool plain_scales =
        s_.scale == ScaleRule::kE4m3 && s_.e4m3_max == 448 && s_.headroom == Headroom::kNone;
    require(s_.amax != AmaxScope::kGroup128 || !nvfp4() || plain_scales,
            "amax = \"group-128\" has its own scales: leave scale, e4m3_max and headroom out");
    require(s_.amax != AmaxScope::kDelayed || s_.scale != ScaleRule::kFp32Pow2,
            "a delayed scale is not a power of two: leave scale out");
  }

  const QuantSpec& s_;
  std::string_view format_;
  std::vector<std::string> problems_;
};

}  // namespace

QuantSpec default_spec(QuantFormat format) {
  QuantSpec spec;
  spec.format = format;
  spec.block = blocks_of(format).front();
  spec.scale = scales_of(format).front();
  return spec;
}

std::string describe(const QuantSpec& s) {
  const QuantSpec usual = default_spec(s.format);
  std::string text(name(s.format));
  if (s.quantized()) text += fmt::format(" {}", name(s.block));
  const auto add = [&]<class E>(const E& value, const E& usual_value, std::string_view prefix) {
    if (value != usual_value) text += fmt::format(" {}{}", prefix, name(value));
  };
  add(s.scale, usual.scale, "");
  add(s.rounding, usual.rounding, "");
  if (s.hadamard != 0) {
    text += fmt::format(" hadamard-{}", s.hadamard);
    add(s.signs, Signs::kFixed, "signs-");
  }
  add(s.four_over_six, usual.four_over_six, "4/6-");
  if (s.e4m3_max != usual.e4m3_max) text += fmt::format(" e4m3-max-{}", s.e4m3_max);
  add(s.headroom, usual.headroom, "headroom-");
  add(s.amax, usual.amax, "amax-");
  if (s.source == Source::kForward) text += " of-forward";
  return text;
}

std::vector<std::string> problems(const QuantSpec& spec) { return Checker(spec).run(); }

}  // namespace qstep::precision
