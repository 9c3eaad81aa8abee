#include "data/parallel_encoder.h"

#include <algorithm>
#include <atomic>
#include <future>
#include <thread>

namespace qstep::data {
namespace {

// Text that is collected before the threads start: enough for them to meet most words again.
constexpr uint64_t kBatchBytesPerThread = uint64_t{4} << 20;

}  // namespace

ParallelEncoder::ParallelEncoder(const Tokenizer& tokenizer, TokenStoreWriter& writer)
    : tokenizer_(tokenizer),
      writer_(writer),
      n_threads_(std::clamp(std::thread::hardware_concurrency(), 1u, 32u)) {}

void ParallelEncoder::add(Part part, std::string_view text, bool ends_document) {
  if (text.empty()) return;
  pieces_.push_back({part, std::string(text), ends_document, {}});
  pending_bytes_ += text.size();
  if (pending_bytes_ >= n_threads_ * kBatchBytesPerThread) flush();
}

void ParallelEncoder::flush() {
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i; (i = next++) < pieces_.size();) {
      pieces_[i].tokens = tokenizer_.encode(pieces_[i].text);
      if (pieces_[i].ends_document) pieces_[i].tokens.push_back(tokenizer_.eos_id());
    }
  };
  std::vector<std::future<void>> workers;
  for (unsigned t = 1; t < n_threads_; ++t) {
    workers.push_back(std::async(std::launch::async, work));
  }
  work();
  for (std::future<void>& worker : workers) worker.get();  // passes exceptions on
  for (const Piece& piece : pieces_) {
    writer_.append(piece.part, piece.tokens, piece.text.size());
    if (piece.ends_document) writer_.end_document(piece.part);
  }
  pieces_.clear();
  pending_bytes_ = 0;
}

}  // namespace qstep::data
