// Stochastic rounding with given random bits, over all floats, against the tables of the tests'
// reference. For fixed bits it is monotone, so that every float can be looked at.
#include "precision/stochastic_rounding.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "precision/random_bits.h"
#include "tests/precision/all_floats.h"
#include "tests/support/quant_reference_formats.h"

namespace qstep::precision {
namespace {

using test::find_rejected;
using test::for_each_interval;
using test::kInfinityBits;
using test::kNone;
using test::kSignBit;
namespace reference = test::reference;

// Both ends, both sides of the middle, and the middle.
constexpr uint32_t kBytes[] = {0, 1, 127, 128, 255};

TEST(StochasticRounding, ToE2m1GivesTheReferencesValueOnEveryFloat) {
  for (const uint32_t byte : kBytes) {
    const auto code_of = [&](float x) {
      return reference::stochastic(reference::e2m1(), x, static_cast<uint8_t>(byte));
    };
    for_each_interval(code_of, [&](uint32_t first, uint32_t beyond, uint8_t code) {
      const uint32_t expected = bits(reference::value(reference::e2m1(), code));
      for (const uint32_t sign : {0u, kSignBit}) {
        const int64_t rejected =
            find_rejected(sign + uint64_t{first}, sign + uint64_t{beyond}, [=](uint32_t pattern) {
              return bits(round_stochastic_e2m1(from_bits(pattern), byte)) == (expected | sign);
            });
        EXPECT_EQ(rejected, kNone) << std::hex << "0x" << rejected << " with byte " << byte;
      }
    });
    for (const uint32_t sign : {0u, kSignBit}) {
      const int64_t rejected = find_rejected(
          sign + uint64_t{kInfinityBits} + 1, uint64_t{sign} + kSignBit, [=](uint32_t pattern) {
            return round_stochastic_e2m1(from_bits(pattern), byte) == 6.0f;
          });
      EXPECT_EQ(rejected, kNone) << std::hex << "0x" << rejected << " with byte " << byte;
    }
  }
}

// What a quantizer uses where it knows that a whole block is free of NaN and of what overflows.
TEST(StochasticRounding, TheTameFormGivesTheSameBitsOnEveryFloatBelowSeven) {
  const uint32_t beyond = bits(kOverflow<ElementFormat::kE2m1>);
  for (const uint32_t byte : {1u, 255u}) {
    const float fraction = static_cast<float>(byte) * 0x1p-9f;
    for (const uint32_t sign : {0u, kSignBit}) {
      const int64_t rejected = find_rejected(sign, uint64_t{sign} + beyond, [=](uint32_t pattern) {
        const float x = from_bits(pattern);
        return bits(round_stochastic_e2m1_by<Range::kTame>(x, fraction)) ==
               bits(round_stochastic_e2m1(x, byte));
      });
      EXPECT_EQ(rejected, kNone) << std::hex << "0x" << rejected << " with byte " << byte;
    }
  }
}

// The remaining bytes: both forms on the first and the last float of every code.
TEST(StochasticRounding, ToE2m1ChangesWhereTheReferenceDoesForEveryByte) {
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const auto code_of = [&](float x) {
      return reference::stochastic(reference::e2m1(), x, static_cast<uint8_t>(byte));
    };
    const float fraction = static_cast<float>(byte) * 0x1p-9f;
    for_each_interval(code_of, [&](uint32_t first, uint32_t beyond, uint8_t code) {
      const float expected = reference::value(reference::e2m1(), code);
      for (const uint32_t pattern : {first, beyond - 1}) {
        EXPECT_EQ(round_stochastic_e2m1(from_bits(pattern), byte), expected) << byte;
        EXPECT_EQ(round_stochastic_e2m1(from_bits(pattern | kSignBit), byte), -expected) << byte;
        if (from_bits(pattern) < kOverflow<ElementFormat::kE2m1>) {
          EXPECT_EQ(round_stochastic_e2m1_by<Range::kTame>(from_bits(pattern), fraction), expected)
              << byte;
        }
      }
    });
  }
}

// The fraction made from a word's bits is the byte's: every byte at every place.
TEST(StochasticRounding, TheFractionIsThatOfTheByte) {
  for (uint32_t byte = 0; byte < 256; ++byte) {
    for (int i = 0; i < 16; ++i) {
      for (const uint32_t others : {0u, 0xFFFFFFFFu}) {
        RandomWords<float> words{{others, others, others, others}};
        const int shift = 8 * (i % 4);
        words.w[i / 4] = (others & ~(0xFFu << shift)) | byte << shift;
        EXPECT_EQ(random_byte(words, i), byte);
        EXPECT_EQ(random_fraction(words, i), static_cast<float>(byte) * 0x1p-9f);
      }
    }
  }
}

// The model of the GPU's instruction: a byte for each of four numbers, those of the word's lower
// byte of both halves for the first two (PTX ISA, cvt); each number rounded as by its byte.
TEST(StochasticRounding, TheModelOfTheInstructionGivesEachNumberAByteOfItsOwn) {
  constexpr float kFloats[] = {0.25f,  -0.7f, 1.2f,  2.9f,
                               -5.0f,  6.0f,  7.5f,  1e30f,
                               -1e30f, 0.0f,  -0.0f, std::numeric_limits<float>::quiet_NaN()};
  std::array<int, 4> byte_of{};
  for (int byte = 0; byte < 4; ++byte) {
    float v[4] = {0.25f, 0.25f, 0.25f, 0.25f};
    round_four_by_hardware(v, 0xFFu << (8 * byte));
    for (size_t i = 0; i < 4; ++i) {
      if (v[i] != 0.0f) byte_of[i] = byte;
    }
    EXPECT_EQ(v[0] + v[1] + v[2] + v[3], 0.5f) << "byte " << byte << " is one number's alone";
    const bool of_first_two = v[0] + v[1] != 0.0f;
    EXPECT_EQ(of_first_two, byte % 2 == 0) << "byte " << byte;
  }
  for (uint32_t draw = 0; draw < 2000; ++draw) {
    const PhiloxWords words = philox4x32(3, {{draw, 0, 0, 0}});
    float v[4], x[4];
    for (uint32_t i = 0; i < 4; ++i) x[i] = v[i] = kFloats[words.w[i] % std::size(kFloats)];
    const uint32_t word = words.w[0] ^ words.w[3] << 7;
    round_four_by_hardware(v, word);
    for (size_t i = 0; i < 4; ++i) {
      const uint32_t byte = word >> (8 * byte_of[i]) & 0xFFu;
      EXPECT_EQ(bits(v[i]), bits(round_stochastic_e2m1(x[i], byte))) << x[i] << ", byte " << byte;
    }
  }
}

// For scales: what is not negative. Nothing, the middle and the end of the 24 bits; the lower eight
// bits are not looked at.
TEST(StochasticRounding, ToE4m3GivesTheReferencesValueOnEveryFloatThatIsNotNegative) {
  for (const uint32_t word : {0x000000FFu, 0x80000000u, 0xFFFFFF00u}) {
    const float uniform = static_cast<float>(word >> 8) * 0x1p-24f;
    const auto code_of = [&](float x) {
      return reference::stochastic_between_neighbours(reference::e4m3(), x, uniform);
    };
    for_each_interval(code_of, [&](uint32_t first, uint32_t beyond, uint8_t code) {
      const float expected = reference::value(reference::e4m3(), code);
      const int64_t rejected = find_rejected(first, beyond, [=](uint32_t pattern) {
        return round_stochastic_e4m3(from_bits(pattern), word) == expected;
      });
      EXPECT_EQ(rejected, kNone) << std::hex << "0x" << rejected << " with word 0x" << word;
    });
  }
}

}  // namespace
}  // namespace qstep::precision
