// How one operand of a GEMM is quantized, as data. A recipe is a table of these, not a class per
// paper; a quantizer is built from the fields alone.
//
// Every list of names is written once, here: parsing, printing, `qstep recipe` and the error
// messages come from it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qstep::precision {

// What an element and its scales are.
//   bf16        the compute type: not quantized
//   nvfp4       E2M1, an E4M3 scale per block, one FP32 factor per tensor      (numerics 7.6)
//   mxfp4       E2M1, an E8M0 scale per block                                  (OCP MX v1.0)
//   mxfp8-*     E4M3 or E5M2, an E8M0 scale per block
//   fp8-*       E4M3 or E5M2, an FP32 scale per tensor or per block
enum class QuantFormat : uint8_t {
  kBf16,
  kNvfp4,
  kMxfp4,
  kMxfp8E4m3,
  kMxfp8E5m2,
  kFp8E4m3,
  kFp8E5m2
};

// The elements that share a scale: `rows` of the operand by `k` along the summed dimension.
// {0, 0} is the whole tensor.
struct BlockShape {
  int rows = 0, k = 0;
  friend bool operator==(const BlockShape&, const BlockShape&) = default;
  constexpr bool whole_tensor() const { return k == 0; }
  constexpr bool square() const { return rows > 1; }
};

enum class ScaleRule : uint8_t {
  kE4m3,             // nvfp4: rounded once, block_amax * fl(S_enc / 6)                  (TE)
  kE4m3TwoRounding,  // nvfp4: fl(block_amax / 6) * S_enc                    (paper, JAX-TE)
  kPow2Up,           // mx: the power of two at or above amax / max                      (TE)
  kPow2Floor,        // mx: floor(log2 amax) - emax                              (OCP MX 1.0)
  kFp32,             // fp8: max / amax in FP32
  kFp32Pow2,         // fp8: the same, rounded down to a power of two
};

enum class Rounding : uint8_t {
  kNearest,     // ties to even
  kStochastic,  // numerics 4.2, bits of 4.3
  kMsEden,      // nearest elements, scales corrected and rounded stochastically (Quartet II)
};

// Who rounds to E2M1 stochastically, for all of a run: no part of a spec.
//   portable   formulas, with the same codes on every device                  (numerics 4.2)
//   hardware   the GPU's cvt.rs: as unbiased, faster, and other codes; where it has it
enum class StochasticRounder : uint8_t { kPortable, kHardware };

// Signs of the random Hadamard transform, +1 or -1 per position of a group.
enum class Signs : uint8_t {
  kFixed,     // one vector for all layers and steps (TE)
  kPerLayer,  // drawn from the seed per layer and GEMM
  kPerStep,   // drawn per layer, GEMM and step
};

// 4/6 (arXiv 2512.02010): each block maps its amax to 6 or to 4, whichever errs less.
enum class FourOverSix : uint8_t { kNone, kMae, kMse, kAbsMax };

// How much of the element range the block's amax is mapped to. MS-EDEN has its own.
enum class Headroom : uint8_t { kNone, kSixteenSeventeenths, kThreeQuarters };

// Where the outer scale (nvfp4) or the scale (fp8) takes its amax from.
enum class AmaxScope : uint8_t {
  kTensor,    // the logical tensor of one micro-batch
  kRow,       // each row of the operand: an outer FP32 scale per row
  kGroup128,  // each row and 128 of k: an outer FP32 scale per 1x128            (TetraJet-v2)
  kDelayed,   // fp8: earlier steps                                              (numerics 7.2)
};

// What is quantized: the tensor itself, or what the forward pass made of it (so that backward
// differentiates the network that ran).
enum class Source : uint8_t { kHighPrecision, kForward };

struct QuantSpec {
  QuantFormat format = QuantFormat::kBf16;
  BlockShape block;
  ScaleRule scale = ScaleRule::kFp32;
  Rounding rounding = Rounding::kNearest;
  int hadamard = 0;  // 0, 16, 32, 64 or 128, along k
  Signs signs = Signs::kFixed;
  FourOverSix four_over_six = FourOverSix::kNone;
  int e4m3_max = 448;  // nvfp4: largest block scale used, 448 or 256
  Headroom headroom = Headroom::kNone;
  AmaxScope amax = AmaxScope::kTensor;
  Source source = Source::kHighPrecision;

  friend bool operator==(const QuantSpec&, const QuantSpec&) = default;
  constexpr bool quantized() const { return format != QuantFormat::kBf16; }
};

template <class E>
using Name = std::pair<std::string_view, E>;

inline constexpr std::array kQuantFormatNames{
    Name<QuantFormat>{"bf16", QuantFormat::kBf16},
    Name<QuantFormat>{"nvfp4", QuantFormat::kNvfp4},
    Name<QuantFormat>{"mxfp4", QuantFormat::kMxfp4},
    Name<QuantFormat>{"mxfp8-e4m3", QuantFormat::kMxfp8E4m3},
    Name<QuantFormat>{"mxfp8-e5m2", QuantFormat::kMxfp8E5m2},
    Name<QuantFormat>{"fp8-e4m3", QuantFormat::kFp8E4m3},
    Name<QuantFormat>{"fp8-e5m2", QuantFormat::kFp8E5m2}};
inline constexpr std::array kBlockNames{
    Name<BlockShape>{"tensor", BlockShape{0, 0}},     Name<BlockShape>{"1x16", BlockShape{1, 16}},
    Name<BlockShape>{"16x16", BlockShape{16, 16}},    Name<BlockShape>{"1x32", BlockShape{1, 32}},
    Name<BlockShape>{"32x32", BlockShape{32, 32}},    Name<BlockShape>{"1x128", BlockShape{1, 128}},
    Name<BlockShape>{"128x128", BlockShape{128, 128}}};
inline constexpr std::array kScaleRuleNames{
    Name<ScaleRule>{"e4m3", ScaleRule::kE4m3},
    Name<ScaleRule>{"e4m3-two-rounding", ScaleRule::kE4m3TwoRounding},
    Name<ScaleRule>{"pow2-up", ScaleRule::kPow2Up},
    Name<ScaleRule>{"pow2-floor", ScaleRule::kPow2Floor},
    Name<ScaleRule>{"fp32", ScaleRule::kFp32},
    Name<ScaleRule>{"fp32-pow2", ScaleRule::kFp32Pow2}};
inline constexpr std::array kRoundingNames{Name<Rounding>{"nearest", Rounding::kNearest},
                                           Name<Rounding>{"stochastic", Rounding::kStochastic},
                                           Name<Rounding>{"ms-eden", Rounding::kMsEden}};
inline constexpr std::array kStochasticRounderNames{
    Name<StochasticRounder>{"portable", StochasticRounder::kPortable},
    Name<StochasticRounder>{"hardware", StochasticRounder::kHardware}};
inline constexpr std::array kSignsNames{Name<Signs>{"fixed", Signs::kFixed},
                                        Name<Signs>{"per-layer", Signs::kPerLayer},
                                        Name<Signs>{"per-step", Signs::kPerStep}};
inline constexpr std::array kFourOverSixNames{
    Name<FourOverSix>{"none", FourOverSix::kNone}, Name<FourOverSix>{"mae", FourOverSix::kMae},
    Name<FourOverSix>{"mse", FourOverSix::kMse}, Name<FourOverSix>{"absmax", FourOverSix::kAbsMax}};
inline constexpr std::array kHeadroomNames{Name<Headroom>{"none", Headroom::kNone},
                                           Name<Headroom>{"16/17", Headroom::kSixteenSeventeenths},
                                           Name<Headroom>{"3/4", Headroom::kThreeQuarters}};
inline constexpr std::array kAmaxScopeNames{Name<AmaxScope>{"tensor", AmaxScope::kTensor},
                                            Name<AmaxScope>{"row", AmaxScope::kRow},
                                            Name<AmaxScope>{"group-128", AmaxScope::kGroup128},
                                            Name<AmaxScope>{"delayed", AmaxScope::kDelayed}};
inline constexpr std::array kSourceNames{Name<Source>{"high-precision", Source::kHighPrecision},
                                         Name<Source>{"forward", Source::kForward}};

constexpr const auto& names_of(QuantFormat) { return kQuantFormatNames; }
constexpr const auto& names_of(BlockShape) { return kBlockNames; }
constexpr const auto& names_of(ScaleRule) { return kScaleRuleNames; }
constexpr const auto& names_of(Rounding) { return kRoundingNames; }
constexpr const auto& names_of(StochasticRounder) { return kStochasticRounderNames; }
constexpr const auto& names_of(Signs) { return kSignsNames; }
constexpr const auto& names_of(FourOverSix) { return kFourOverSixNames; }
constexpr const auto& names_of(Headroom) { return kHeadroomNames; }
constexpr const auto& names_of(AmaxScope) { return kAmaxScopeNames; }
constexpr const auto& names_of(Source) { return kSourceNames; }

template <class E>
constexpr std::string_view name(E value) {
  for (const auto& [text, candidate] : names_of(value)) {
    if (candidate == value) return text;
  }
  return "?";
}

// The format with the block, scale rule and options that its specification gives it.
QuantSpec default_spec(QuantFormat format);

// "nvfp4 1x16 stochastic hadamard-16": format, block and every other field that differs from the
// format's default.
std::string describe(const QuantSpec& spec);

// Combinations that mean nothing ("mxfp8-e4m3 takes no four_over_six"), one text each; empty when
// the spec can be built.
std::vector<std::string> problems(const QuantSpec& spec);

// Both orientations of a tensor hold the same codes, one the transpose of the other: one scale for
// the tensor or square blocks, nearest rounding and no Hadamard transform.
inline bool transposable(const QuantSpec& rowwise, const QuantSpec& columnwise) {
  QuantSpec as_rowwise = columnwise;
  as_rowwise.source = rowwise.source;
  return rowwise == as_rowwise && rowwise.quantized() && rowwise.hadamard == 0 &&
         rowwise.rounding == Rounding::kNearest &&
         (rowwise.block.whole_tensor() || rowwise.block.square()) &&
         (rowwise.amax == AmaxScope::kTensor || rowwise.amax == AmaxScope::kDelayed);
}

// Elements along k that a quantizer works on as one: its block, its Hadamard group, its outer
// group. k must be a multiple of it, except for fp8, whose last block may be shorter.
inline int unit_k(const QuantSpec& spec) {
  const int outer = spec.amax == AmaxScope::kGroup128 ? 128 : 0;
  int unit = spec.block.k > spec.hadamard ? spec.block.k : spec.hadamard;
  return unit > outer ? unit : outer;
}

constexpr bool is_fp8_format(QuantFormat format) {
  return format == QuantFormat::kFp8E4m3 || format == QuantFormat::kFp8E5m2;
}
constexpr bool is_mx_format(QuantFormat format) {
  return format == QuantFormat::kMxfp4 || format == QuantFormat::kMxfp8E4m3 ||
         format == QuantFormat::kMxfp8E5m2;
}

// Whether there is one FP32 factor for the whole tensor.
inline bool has_tensor_scale(const QuantSpec& spec) {
  if (!spec.quantized()) return false;
  if (spec.format == QuantFormat::kNvfp4) return spec.amax == AmaxScope::kTensor;
  if (is_fp8_format(spec.format)) {
    return spec.block.whole_tensor() && spec.amax != AmaxScope::kRow;
  }
  return spec.headroom == Headroom::kThreeQuarters;  // the constant 4/3
}

// Whether all that it needs before it quantizes is the amax of the tensor as it is, NaN included:
// whoever made the tensor may have found it, and the tensor is read once.
inline bool takes_known_amax(const QuantSpec& spec) {
  return is_fp8_format(spec.format) && spec.block.whole_tensor() &&
         spec.amax == AmaxScope::kTensor && spec.hadamard == 0 &&
         spec.source == Source::kHighPrecision;
}

// What the dimensions of an operand must be multiples of; 1: any length.
inline int multiple_of_k(const QuantSpec& spec) {
  if (!spec.quantized()) return 1;
  if (!is_fp8_format(spec.format)) return unit_k(spec);
  return spec.hadamard > 0 ? spec.hadamard : 1;
}
inline int multiple_of_rows(const QuantSpec& spec) {
  return spec.block.square() && !is_fp8_format(spec.format) ? spec.block.rows : 1;
}

}  // namespace qstep::precision
