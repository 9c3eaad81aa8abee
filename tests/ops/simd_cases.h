// Every operation of ops/simd/simd.h as a function on arrays, compiled with this machine's widest
// body (simd_test.cpp), with at most 256 bits (simd_256.cpp) and with the generic body
// (simd_generic.cpp). The anonymous namespace keeps them apart.
#pragma once

#include <string_view>
#include <vector>

#include "ops/simd/simd.h"
#include "ops/simd/simd_transpose.h"
#include "precision/quantize_unit.h"

namespace qstep::test {

// Sixteen lanes each; `out` is written whole.
struct SimdCase {
  // a, b, c hold any floats; or a integral exponents and b numbers from [1/2, 2).
  enum class Inputs { kAny, kExponents };
  std::string_view name;
  void (*run)(const float* a, const float* b, const float* c, float* out);
  Inputs inputs = Inputs::kAny;
};

std::vector<SimdCase> simd_256_cases();
std::vector<SimdCase> generic_simd_cases();

namespace {

std::vector<SimdCase> simd_cases() {
  using namespace ops;  // NOLINT: lists the operations of one header
  using In = SimdCase::Inputs;
  return {
      {"+", [](auto a, auto b, auto, auto out) { store(out, load(a) + load(b)); }},
      {"-", [](auto a, auto b, auto, auto out) { store(out, load(a) - load(b)); }},
      {"*", [](auto a, auto b, auto, auto out) { store(out, load(a) * load(b)); }},
      {"/", [](auto a, auto b, auto, auto out) { store(out, load(a) / load(b)); }},
      {"fma", [](auto a, auto b, auto c, auto out) { store(out, fma(load(a), load(b), load(c))); }},
      {"max", [](auto a, auto b, auto, auto out) { store(out, max(load(a), load(b))); }},
      {"min", [](auto a, auto b, auto, auto out) { store(out, min(load(a), load(b))); }},
      {"sqrt", [](auto a, auto, auto, auto out) { store(out, sqrt(load(a))); }},
      {"round_to_integer",
       [](auto a, auto, auto, auto out) { store(out, round_to_integer(load(a))); }},
      {"exp2_integer", [](auto a, auto, auto, auto out) { store(out, exp2_integer(load(a))); },
       In::kExponents},
      {"scale_by_power",
       [](auto a, auto b, auto, auto out) { store(out, scale_by_power(load(b), load(a))); },
       In::kExponents},
      {"exp", [](auto a, auto, auto, auto out) { store(out, exp(load(a))); }},
      {"sigmoid", [](auto a, auto, auto, auto out) { store(out, sigmoid(load(a))); }},
      {"tanh", [](auto a, auto, auto, auto out) { store(out, tanh(load(a))); }},
      {"keep_first", [](auto a, auto, auto, auto out) { store(out, keep_first(load(a), 5)); }},
      {"load_part", [](auto a, auto, auto, auto out) { store(out, load_part(a, 7)); }},
      {"store_part",
       [](auto a, auto b, auto, auto out) {
         store(out, load(a));
         store_part(out, load(b), 9);
       }},
      {"reduce_add",
       [](auto a, auto, auto, auto out) { store(out, broadcast(reduce_add(load(a)))); }},
      {"reduce_max",
       [](auto a, auto, auto, auto out) { store(out, broadcast(reduce_max(load(a)))); }},
      {"bf16",
       [](auto a, auto b, auto, auto out) {
         Bf16 narrow[2 * kLanes];
         store(narrow, load(a));
         store(narrow + kLanes, load(a));
         store_part(narrow + kLanes, load(b), 3);
         store(out, load(narrow) + load_part(narrow + kLanes, 11));
       }},
      {"e2m1 nearest",
       [](auto a, auto, auto, auto out) {
         store(out, precision::round_nearest<precision::ElementFormat::kE2m1>(load(a)));
       }},
      {"e4m3 toward zero",
       [](auto a, auto, auto, auto out) {
         store(out, precision::round_toward_zero<precision::ElementFormat::kE4m3>(load(a)));
       }},
      {"e2m1 stochastic",
       [](auto a, auto b, auto, auto out) {
         store(out,
               precision::round_stochastic_e2m1(load(a), bits(load(b)) & broadcast_bits(0xFFu)));
       }},
      {"e4m3 stochastic",
       [](auto a, auto b, auto, auto out) {
         store(out, precision::round_stochastic_e4m3(magnitude(load(a)), bits(load(b))));
       }},
      {"e8m0",
       [](auto a, auto, auto, auto out) {
         store(out, precision::e8m0_value<F32x16>(precision::e8m0_round_up(load(a))));
       }},
      {"nvfp4 scale",
       [](auto a, auto b, auto, auto out) {
         const auto t = precision::nvfp4_factors(magnitude(load(a)), 2688.0f, false);
         store(out, precision::nvfp4_block_scale(magnitude(load(b)), t).enc);
       }},
      {"fp8 scale",
       [](auto a, auto, auto, auto out) {
         store(out, precision::fp8_scale(magnitude(load(a)), 448.0f, precision::kMaxFloat, true));
       }},
      {"philox",
       [](auto a, auto b, auto, auto out) {
         const auto w = precision::random_words<F32x16>(77, bits(load(a)), bits(load(b)), 3, 4);
         const U32x16 mixed = shift_right(w.w[0] ^ w.w[1], 8) + shift_right(w.w[2] - w.w[3], 9);
         store(out, to_number(mixed) + precision::random_fraction(w, 6));
       }},
      {"hadamard",
       [](auto a, auto b, auto c, auto out) {
         F32x16 v[16];
         for (int i = 0; i < 16; ++i)
           v[i] = i % 2 == 0 ? load(a) : load(b) * load(i % 4 < 2 ? a : c);
         precision::hadamard_group<16>(v, precision::fixed_signs());
         store(out, v[3] + v[12]);
       }},
      {"transpose",
       [](auto a, auto b, auto c, auto out) {
         F32x16 v[16];
         for (int i = 0; i < 16; ++i) v[i] = load(i % 3 == 0 ? a : i % 3 == 1 ? b : c);
         transpose(v);
         Bf16 tile[16 * 16];
         for (int i = 0; i < 16; ++i) store(tile + 16 * i, v[i]);
         load_transposed(v, tile, 16);
         Bf16 back[16 * 16];
         store_transposed(back, 16, v);
         store(out, load(back + 16 * 7));
       }},
      {"bf16 store",
       [](auto a, auto, auto, auto out) {
         Bf16 narrow[kLanes];
         store(narrow, load(a));
         store(out, load(narrow));
       }},
  };
}

}  // namespace
}  // namespace qstep::test
