// What parts of the model and the step tell a backend that they are about to do (Ops::label).
// Timelines group calls by these; a GEMM's is the name of its linear layer and of its pass,
// "qkv fprop".
#pragma once

#include <array>
#include <string_view>

#include "trainer/config/layer_precision.h"

namespace qstep::trainer {

inline constexpr std::string_view kEmbedLabel = "embed", kNormLabel = "norm",
                                  kAttentionLabel = "attention", kActivationLabel = "activation",
                                  kHeadLabel = "head", kGradientSumLabel = "gradient sum",
                                  kClipLabel = "clip", kUpdateLabel = "update";

struct LinearLabels {
  std::string_view fprop, dgrad, wgrad;
};
// In the order of LinearKind.
inline constexpr std::array<LinearLabels, kLinearNames.size()> kLinearLabels{
    {{"qkv fprop", "qkv dgrad", "qkv wgrad"},
     {"attn_out fprop", "attn_out dgrad", "attn_out wgrad"},
     {"up fprop", "up dgrad", "up wgrad"},
     {"down fprop", "down dgrad", "down wgrad"}}};
inline constexpr LinearLabels kHeadLabels{"head fprop", "head dgrad", "head wgrad"};

}  // namespace qstep::trainer
