#include "data/sentence_sample.h"

#include "data/permutation.h"

namespace qstep::data {

void SentenceSample::offer(std::string_view sentence) {
  const uint64_t hash = mix64(mix64(seed_) ^ n_offered_++);
  if (hash > threshold_) return;
  kept_.emplace_back(hash, sentence);
  bytes_ += sentence.size();
  while (bytes_ > max_bytes_ && !kept_.empty()) drop_half();
}

void SentenceSample::drop_half() {
  threshold_ /= 2;
  bytes_ = 0;
  std::erase_if(kept_, [&](const auto& entry) {
    if (entry.first > threshold_) return true;
    bytes_ += entry.second.size();
    return false;
  });
}

std::vector<std::string> SentenceSample::take() {
  std::vector<std::string> sentences;
  sentences.reserve(kept_.size());
  for (auto& [hash, sentence] : kept_) sentences.push_back(std::move(sentence));
  kept_.clear();
  return sentences;
}

}  // namespace qstep::data
