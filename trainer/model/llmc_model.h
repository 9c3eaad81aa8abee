// Model files of llm.c: 256 four-byte header words, then 16 tensors with the layers stacked. GPT-2
// only. Header: 20240326, version (3 FP32, 5 BF16), max T, V, L, H, C, Vp; the rest is unused.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config/model_config.h"

namespace qstep::trainer {

struct LlmcModel {
  ModelConfig model;                 // preset empty
  std::vector<float> values;         // all weights in the file's order
  std::vector<NamedTensor> weights;  // FP32 views of `values` by our names ("blocks.3.qkv.weight")
};

// Reads version 3 or 5; BF16 is widened, padding rows of the vocabulary become zero. Checks magic,
// version, every dimension and the exact size of the file: Error (data).
LlmcModel read_llmc_model(const std::string& path);

// Writes version 3. `weights` are FP32 by our names, in any order. Error (config) for a model that
// the format cannot hold, Error (disk) when the file cannot be written.
void write_llmc_model(const std::string& path, const ModelConfig& model,
                      std::span<const NamedTensor> weights);

// The model file as a checkpoint of step 0 under `root`: FP32 master weights, moments zero, a
// configuration with the model's dimensions, tokenizer "llmc-gpt2".
void import_llmc_model(const std::string& path, const std::string& root);

// The master weights of a checkpoint as a version 3 file.
void export_llmc_model(const CheckpointReader& checkpoint, const std::string& path);

}  // namespace qstep::trainer
