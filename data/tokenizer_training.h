// Trains a SentencePiece BPE tokenizer that loses nothing: byte fallback, no normalisation.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qstep::data {

// Ids before the learned pieces: unknown (never produced), end of document, 1 to 4 tabs, 256 bytes.
inline constexpr uint32_t kSentencePieceReserved = 262;

// Longest sentence that the trainer takes; it keeps positions in 16 bits.
inline constexpr size_t kMaxSentenceBytes = 4096;

// Cuts text into sentences for the trainer: lines with their line ends (runs of them together), in
// parts of at most kMaxSentenceBytes.
std::vector<std::string_view> split_sentences(std::string_view text);

// Content of a .model file. The same sentences in the same order give the same bytes. A small
// corpus may yield fewer than vocab_size pieces. Throws Error when vocab_size leaves no room for
// the alphabet of the text, or when there are no sentences.
std::string train_sentencepiece(const std::vector<std::string>& sentences, uint32_t vocab_size);

}  // namespace qstep::data
