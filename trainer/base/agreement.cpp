#include "trainer/base/agreement.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <exception>
#include <string_view>

#include "ops/error.h"
#include "trainer/base/exit_reason.h"

namespace qstep::trainer {
namespace {

using ops::Error;
using ops::ExitCode;

// How a phase ended on one rank, as a message: "+" and the text, or "-23 " and the error's text.
std::string outcome(const std::function<std::string()>& f) {
  try {
    return "+" + f();
  } catch (const std::exception& error) {
    return fmt::format("-{} {}", static_cast<int>(exit_code_of(error)), error.what());
  }
}

bool failed(std::string_view message) { return message.starts_with('-'); }

Error error_of(std::string_view message) {
  message.remove_prefix(1);
  int code = static_cast<int>(ExitCode::kInternal);
  const auto parsed = std::from_chars(message.data(), message.data() + message.size(), code);
  message.remove_prefix(static_cast<size_t>(parsed.ptr - message.data()) + 1);
  return {static_cast<ExitCode>(code), std::string(message)};
}

// Throws the Error that counts, if there is one.
void throw_first(const std::vector<std::string>& messages) {
  for (const bool symptoms : {false, true}) {
    for (size_t rank = 0; rank < messages.size(); ++rank) {
      if (!failed(messages[rank])) continue;
      const Error error = error_of(messages[rank]);
      if (is_symptom(error.code()) != symptoms) continue;
      if (messages.size() == 1) throw error;
      const bool same_everywhere =
          std::all_of(messages.begin(), messages.end(),
                      [&](const std::string& other) { return other == messages[0]; });
      throw AgreedError(error.code(), same_everywhere
                                          ? std::string(error.what())
                                          : fmt::format("rank {}: {}", rank, error.what()));
    }
  }
}

}  // namespace

std::vector<std::string> agree_texts(parallel::Comm& comm, const std::function<std::string()>& f) {
  std::vector<std::string> messages = parallel::all_gather_text(comm, outcome(f));
  throw_first(messages);
  for (std::string& message : messages) message.erase(0, 1);
  return messages;
}

void agree(parallel::Comm& comm, const std::function<void()>& f) {
  agree_texts(comm, [&] {
    f();
    return std::string();
  });
}

std::string text_of_first_rank(parallel::Comm& comm, const std::function<std::string()>& f) {
  std::string message =
      parallel::broadcast_text(comm, comm.rank() == 0 ? outcome(f) : std::string(), 0);
  if (failed(message)) {
    const Error error = error_of(message);
    if (comm.size() == 1) throw error;
    throw AgreedError(error.code(), error.what());
  }
  return message.substr(1);
}

void on_first_rank(parallel::Comm& comm, const std::function<void()>& f) {
  text_of_first_rank(comm, [&] {
    f();
    return std::string();
  });
}

}  // namespace qstep::trainer
