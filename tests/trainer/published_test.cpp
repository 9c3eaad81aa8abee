// Predicted against published throughput. Nothing of the model is fitted to these rows: the test
// prints all of them, and holds each to a band so wide that only a mistake leaves it.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "trainer/plan/step_model.h"

namespace qstep::trainer {
namespace {

// Predicted over published. The vendor's runs are tuned; torchtitan's recompute activations and
// share layers without what the model takes for granted.
struct Band {
  double lowest, highest;
};
constexpr Band kTuned{0.75, 1.6}, kUntuned{0.9, 2.2};

// Tokens per second and GPU. Pipeline and context parallelism count as data parallel here: their
// ranks share the tokens alike, and the pipeline's bubble is left out.
struct Published {
  const char *machine, *model, *recipe;
  int gpus, tensor;
  int64_t global_batch, micro_batch;
  double tokens_per_s;
  const char* left_out;  // of what the run had
  const char* source;
  Band band;
};

constexpr const char *kArchive = "Megatron-Bridge 25.11", *kApril = "Megatron-Bridge 26.04.01",
                     *kJune = "Megatron-Bridge 26.06", *kTitan = "torchtitan 2024-12, 500 W",
                     *kAsyncTp = "torchtitan async TP 2025-06, batch assumed";

// The vendor's FP4 runs keep no blocks in BF16 (nvfp4-all-layers).
constexpr const char* kFp4 = "nvfp4-all-layers";
constexpr const char* kFp8 = "fp8-current";
constexpr Published kRows[] = {
    {"h100", "llama-8b", "bf16", 8, 1, 8, 1, 6667, "FSDP", kTitan, kUntuned},
    {"h100", "llama-8b", kFp8, 8, 1, 8, 1, 8532, "FSDP", kTitan, kUntuned},
    {"h100", "llama-8b", "bf16", 64, 8, 64, 1, 4378, "FSDP", kAsyncTp, kUntuned},
    {"h100", "llama-8b", kFp8, 64, 8, 64, 1, 5078, "FSDP", kAsyncTp, kUntuned},
    {"h100", "llama-70b", "bf16", 256, 8, 512, 1, 597, "FSDP", kAsyncTp, kUntuned},
    {"h100", "llama-70b", kFp8, 256, 8, 512, 1, 810, "FSDP", kAsyncTp, kUntuned},
    {"h100", "llama-8b", kFp8, 8, 1, 128, 1, 14451, "FSDP", kArchive, kTuned},
    {"h100", "llama-70b", kFp8, 64, 4, 256, 1, 1664, "PP 8", kApril, kTuned},
    {"h100", "llama-405b", kFp8, 1024, 8, 1536, 1, 326, "PP 8, CP 2", kJune, kTuned},
    {"gb200", "llama-8b", kFp8, 8, 1, 128, 2, 31508, "", kArchive, kTuned},
    {"gb200", "llama-8b", "mxfp8", 8, 1, 128, 2, 29789, "", kArchive, kTuned},
    {"gb200", "llama-70b", kFp8, 64, 1, 256, 2, 4224, "FSDP", kApril, kTuned},
    {"gb200", "llama-70b", "mxfp8", 64, 2, 256, 1, 3712, "PP 4", kApril, kTuned},
    {"gb200", "llama-70b", kFp4, 64, 2, 256, 1, 4864, "PP 4", kApril, kTuned},
    {"gb200", "llama-405b", kFp8, 256, 4, 1536, 1, 843, "PP 16", kJune, kTuned},
    {"gb200", "llama-405b", "mxfp8", 256, 4, 1536, 1, 783, "PP 16", kJune, kTuned},
    {"gb200", "llama-405b", kFp4, 256, 4, 1536, 1, 1166, "PP 16", kJune, kTuned},
    {"gb300", "llama-8b", kFp8, 8, 1, 128, 2, 37556, "", kArchive, kTuned},
    {"gb300", "llama-8b", "mxfp8", 8, 1, 128, 2, 36108, "", kArchive, kTuned},
    {"gb300", "llama-70b", kFp8, 64, 1, 256, 2, 5248, "FSDP", kApril, kTuned},
    {"gb300", "llama-70b", "mxfp8", 64, 1, 256, 1, 4864, "PP 4", kApril, kTuned},
    {"gb300", "llama-70b", kFp4, 64, 1, 256, 1, 7296, "PP 4", kApril, kTuned},
    {"gb300", "llama-405b", kFp8, 256, 4, 1536, 1, 1048, "PP 8", kJune, kTuned},
    {"gb300", "llama-405b", "mxfp8", 256, 2, 1536, 1, 952, "PP 8, CP 2", kJune, kTuned},
    {"gb300", "llama-405b", kFp4, 256, 4, 1536, 1, 1413, "PP 8", kJune, kTuned},
};

TEST(PublishedRuns, PredictedWithinABand) {
  fmt::print(
      "| machine | model | recipe | GPUs | tensor | published | predicted | error | left out | "
      "source |\n|---|---|---|---|---|---|---|---|---|---|\n");
  for (const Published& row : kRows) {
    SCOPED_TRACE(fmt::format("{} {} {}", row.machine, row.model, row.recipe));
    Config config = load_model_words({row.model, "train.seq_len=8192",
                                      fmt::format("train.micro_batch={}", row.micro_batch),
                                      fmt::format("train.global_batch={}", row.global_batch),
                                      fmt::format("precision.recipe={}", row.recipe),
                                      fmt::format("parallel.tensor={}", row.tensor),
                                      "parallel.reduction=rank", "parallel.gradients=bf16"})
                        .config;
    const StepTime t = predict_step(config, machine_model(row.machine), row.gpus);
    const double predicted = t.tokens_per_s() / row.gpus;
    const double ratio = predicted / row.tokens_per_s;
    fmt::print("| {} | {} | {} | {} | {} | {:.0f} | {:.0f} | {:+.0f} % | {} | {} |\n", row.machine,
               row.model, row.recipe, row.gpus, row.tensor, row.tokens_per_s, predicted,
               100 * (ratio - 1), row.left_out, row.source);
    EXPECT_GE(ratio, row.band.lowest);
    EXPECT_LE(ratio, row.band.highest);
  }
}

}  // namespace
}  // namespace qstep::trainer
