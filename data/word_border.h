// Where text may be cut into words: the borders that no piece of a trained vocabulary crosses, so
// that encoding the words one by one gives the tokens of the whole.
#pragma once

namespace qstep::data {

// Between two neighbouring bytes: before the first of a run of spaces, after the last of a run of
// line ends. (A line that begins with spaces has one border, after the line end.)
constexpr bool is_word_border(char before, char after) {
  return before == '\n' ? after != '\n' : before != ' ' && after == ' ';
}

}  // namespace qstep::data
