// A token store of bytes that a small model can learn: words of a small vocabulary, at random.
#pragma once

#include <cstdint>
#include <string>

#include "data/token_store.h"
#include "tests/support/compare.h"

namespace qstep::trainer::testing {

// About 40,000 tokens to train on and 4,000 to validate. `tokenizer` other than "bytes" claims
// another origin for the same ids.
inline void write_small_store(const std::string& path, uint64_t seed,
                              const std::string& tokenizer = "bytes") {
  static const std::string kWords[] = {"the ", "gradient ", "of ",   "a ",      "loss ", "is ",
                                       "sum ", "over ",     "step ", "tokens ", "and ",  "weight "};
  data::TokenStoreWriter writer(path, {.tokenizer = tokenizer,
                                       .model = "",
                                       .vocab_size = 257,
                                       .eos_id = 256,
                                       .source = "made by a test"});
  test::Random random(seed);
  for (const data::Part part : data::kParts) {
    for (int document = 0; document < (part == data::Part::kTrain ? 80 : 8); ++document) {
      std::vector<uint32_t> ids;
      while (ids.size() < 500) {
        for (const char c : kWords[random.integer(0, 11)]) ids.push_back(static_cast<uint8_t>(c));
      }
      const uint64_t bytes = ids.size();
      ids.push_back(256);
      writer.append(part, ids, bytes);
      writer.end_document(part);
    }
  }
  writer.finish();
}

}  // namespace qstep::trainer::testing
