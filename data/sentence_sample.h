// A bounded sample of a stream of sentences, spread evenly over all of it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qstep::data {

// Keeps the sentences whose hash of (seed, number) is below a threshold, in their order, and halves
// the threshold whenever they are more than max_bytes: one pass, bounded memory, and a function of
// the sentences and the seed alone.
class SentenceSample {
 public:
  SentenceSample(uint64_t max_bytes, uint64_t seed) : max_bytes_(max_bytes), seed_(seed) {}

  void offer(std::string_view sentence);
  std::vector<std::string> take();

 private:
  void drop_half();

  uint64_t max_bytes_;
  uint64_t seed_;
  uint64_t threshold_ = ~uint64_t{0};
  uint64_t n_offered_ = 0;
  uint64_t bytes_ = 0;
  std::vector<std::pair<uint64_t, std::string>> kept_;  // hash, sentence
};

}  // namespace qstep::data
