#include "parallel/comm.h"

#include <numeric>

namespace qstep::parallel {

namespace {

using ops::Dtype;

// A text as a tensor of bytes.
ops::Tensor bytes_of(std::string& text) {
  const auto n = static_cast<int64_t>(text.size());
  return ops::matrix(text.data(), Dtype::kU8, 1, n);
}

}  // namespace

std::vector<std::string> all_gather_text(Comm& comm, std::string_view text) {
  const auto n_ranks = static_cast<size_t>(comm.size());
  const auto rank = static_cast<size_t>(comm.rank());
  std::vector<int32_t> sizes(n_ranks);
  sizes[rank] = static_cast<int32_t>(text.size());
  std::vector<int64_t> bounds(n_ranks + 1);
  std::iota(bounds.begin(), bounds.end(), int64_t{0});
  comm.wait(comm.all_gather(ops::view(std::span(sizes)), bounds));

  for (size_t r = 0; r < n_ranks; ++r) bounds[r + 1] = bounds[r] + sizes[r];
  std::string all(static_cast<size_t>(bounds.back()), '\0');
  text.copy(all.data() + bounds[rank], text.size());
  comm.wait(comm.all_gather(bytes_of(all), bounds));

  std::vector<std::string> texts(n_ranks);
  for (size_t r = 0; r < n_ranks; ++r) {
    texts[r] = all.substr(static_cast<size_t>(bounds[r]), static_cast<size_t>(sizes[r]));
  }
  return texts;
}

std::string broadcast_text(Comm& comm, std::string_view text, int root) {
  auto size = static_cast<int32_t>(text.size());
  comm.wait(comm.broadcast(ops::view(std::span(&size, 1)), root));
  std::string received(comm.rank() == root ? text : std::string_view());
  received.resize(static_cast<size_t>(size));
  comm.wait(comm.broadcast(bytes_of(received), root));
  return received;
}

}  // namespace qstep::parallel
