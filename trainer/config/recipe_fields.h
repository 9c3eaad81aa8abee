// The keys of a recipe file, each written once: reading, printing and the nearest key of a
// misspelt one walk these lists. recipes/README.md says what they mean.
#pragma once

#include "precision/recipe.h"
#include "trainer/config/config_options.h"

namespace qstep::trainer {

// f(key, field): what people read.
template <class RecipeT, class F>
void for_each_prose(RecipeT& r, F&& f) {
  f("title", r.title);
  f("paper", r.paper);
  f("good_for", r.good_for);
  f("measured", r.measured);
}

// f(key, field), of an operand written as a table.
template <class SpecT, class F>
void for_each_field(SpecT& s, F&& f) {
  f("format", s.format);
  f("block", s.block);
  f("scale", s.scale);
  f("rounding", s.rounding);
  f("hadamard", s.hadamard);
  f("signs", s.signs);
  f("four_over_six", s.four_over_six);
  f("e4m3_max", s.e4m3_max);
  f("headroom", s.headroom);
  f("amax", s.amax);
  f("source", s.source);
}

// f(key, field, limits), of [delayed].
template <class DelayedT, class F>
void for_each_delayed(DelayedT& d, F&& f) {
  f("history", d.history, at_least(1, 1 << 20));
  f("algo", d.algo, Limits{});
  f("margin", d.margin, at_least(0, 64));
}

// f(key, count), of [keep].
template <class RecipeT, class F>
void for_each_count(RecipeT& r, F&& f) {
  f("first_blocks", r.keep_first);
  f("last_blocks", r.keep_last);
}

}  // namespace qstep::trainer
