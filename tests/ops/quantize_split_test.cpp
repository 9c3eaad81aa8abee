// Parts of a tensor, quantized by ranks that know where they lie and join their amaxes: the codes,
// scales and factors of the tensor as a whole, bit for bit.
#include <functional>

#include "tests/ops/quantize_split_testing.h"

namespace qstep::test {
namespace {

using precision::AmaxScope;
using precision::FourOverSix;
using precision::QuantFormat;
using precision::Rounding;
using precision::ScaleRule;
using precision::Source;

QuantSpec changed(QuantSpec spec, const std::function<void(QuantSpec&)>& change) {
  change(spec);
  EXPECT_TRUE(problems(spec).empty()) << describe(spec);
  return spec;
}

// The operands of x, w and dy of the recipes that come with the trainer.
std::vector<Pair> recipe_pairs() {
  const QuantSpec bf16;
  const auto of = [](QuantFormat format, const std::function<void(QuantSpec&)>& change) {
    return changed(default_spec(format), change);
  };
  const auto nvfp4_of = [](const std::function<void(QuantSpec&)>& change) {
    return changed(nvfp4(), change);
  };
  const QuantSpec rht = nvfp4_of([](QuantSpec& s) { s.hadamard = 16; });
  const QuantSpec stochastic = nvfp4_of([](QuantSpec& s) { s.rounding = Rounding::kStochastic; });
  const QuantSpec stochastic_rht = changed(stochastic, [](QuantSpec& s) { s.hadamard = 16; });
  const QuantSpec square = with_block(nvfp4(), {16, 16});
  const auto adaptive = [&](const QuantSpec& spec, FourOverSix rule) {
    return changed(spec, [&](QuantSpec& s) {
      s.four_over_six = rule;
      s.e4m3_max = 256;
    });
  };
  const QuantSpec ms_eden = nvfp4_of([](QuantSpec& s) {
    s.rounding = Rounding::kMsEden;
    s.hadamard = 128;
    s.signs = precision::Signs::kPerStep;
  });
  const auto of_forward = [&](const QuantSpec& spec) {
    return changed(spec, [](QuantSpec& s) { s.source = Source::kForward; });
  };
  const QuantSpec groups = nvfp4_of([](QuantSpec& s) { s.amax = AmaxScope::kGroup128; });
  const QuantSpec group_gradients = changed(groups, [](QuantSpec& s) {
    s.rounding = Rounding::kStochastic;
    s.hadamard = 16;
    s.signs = precision::Signs::kPerStep;
  });
  const QuantSpec mxfp4 = of(QuantFormat::kMxfp4, [](QuantSpec& s) {
    s.scale = ScaleRule::kPow2Floor;
    s.rounding = Rounding::kStochastic;
    s.hadamard = 64;
    s.signs = precision::Signs::kPerStep;
    s.headroom = precision::Headroom::kThreeQuarters;
  });
  const QuantSpec mxfp8 = default_spec(QuantFormat::kMxfp8E4m3);
  const auto fp8_blocks = [&](int rows, ScaleRule scale) {
    return of(QuantFormat::kFp8E4m3, [&](QuantSpec& s) {
      s.block = {rows, 128};
      s.scale = scale;
    });
  };
  std::vector<Pair> pairs{
      {nvfp4(), rht},  // nvfp4: x, w, dy
      {square, square},
      {stochastic, stochastic_rht},
      {stochastic, stochastic},                                                  // nvfp4-no-rht
      {nvfp4(), nvfp4()},                                                        // nvfp4-1d-weights
      {adaptive(nvfp4(), FourOverSix::kMae), adaptive(rht, FourOverSix::kMae)},  // nvfp4-4over6
      {adaptive(square, FourOverSix::kMae), adaptive(square, FourOverSix::kMae)},
      {adaptive(stochastic, FourOverSix::kMae), adaptive(stochastic_rht, FourOverSix::kMae)},
      {adaptive(nvfp4(), FourOverSix::kMse), of_forward(ms_eden)},  // quartet2
      {ms_eden, ms_eden},
      {groups, of_forward(group_gradients)},  // tetrajet2
      {group_gradients, group_gradients},
      {mxfp4, mxfp4},
      {bf16, mxfp4},
      {mxfp8, mxfp8},
  };
  for (const QuantFormat format : {QuantFormat::kFp8E4m3, QuantFormat::kFp8E5m2}) {
    pairs.push_back({default_spec(format), default_spec(format)});  // fp8-current
    const QuantSpec delayed = of(format, [](QuantSpec& s) { s.amax = AmaxScope::kDelayed; });
    pairs.push_back({delayed, delayed});
  }
  for (const ScaleRule scale : {ScaleRule::kFp32, ScaleRule::kFp32Pow2}) {  // fp8-block*
    pairs.push_back({fp8_blocks(1, scale), fp8_blocks(1, scale)});
    pairs.push_back({fp8_blocks(128, scale), fp8_blocks(128, scale)});
  }
  return pairs;
}

// Large enough for every way through the loops: strips, wide columns and what they leave.
TEST(QuantizeSplit, RecipesGiveTheCodesOfTheWhole) {
  for (const Dtype dtype : {Dtype::kBf16, Dtype::kF32}) {
    const QuantInput in(Data::kNarrow, {512, 2560}, dtype, 0x5117);
    for (const Pair& pair : recipe_pairs()) {
      for (const Cut& cut :
           {Cut{SplitDim::kRows, 2, {256}}, Cut{SplitDim::kRows, 4, {128}},
            Cut{SplitDim::kCols, 2, {1280}}, Cut{SplitDim::kCols, 4, {384, 128, 128}}}) {
        expect_parts(pair, in, cut);
      }
      if (HasFailure()) return;
    }
    // q, k and v down the rows, as in a weight.
    const QuantInput rows(Data::kNarrow, {1024, 384}, dtype, 0x5118);
    for (const Pair& pair : recipe_pairs()) {
      expect_parts(pair, rows, {SplitDim::kRows, 2, {256, 128, 128}});
      if (HasFailure()) return;
    }
  }
}

// Every combination of options that the place of an element means anything to, on every kind of
// numbers.
TEST(QuantizeSplit, EverySpecGivesTheCodesOfTheWhole) {
  uint64_t turn = 0;
  for (const QuantSpec& spec : all_quant_specs()) {
    if (spec.e4m3_max == 256 || spec.signs == precision::Signs::kPerLayer) continue;
    const int64_t u = std::max({unit_k(spec), multiple_of_rows(spec), 16});
    for (const SplitDim split : {SplitDim::kRows, SplitDim::kCols}) {
      const Data data = kAllData[turn % std::size(kAllData)];
      const Dtype dtype = turn % 3 == 0 ? Dtype::kF32 : Dtype::kBf16;
      const Cut cut = turn / 2 % 2 == 0 ? Cut{split, 4, {u}} : Cut{split, 2, {u, u, u}};
      const int64_t size = cut.size(), other = std::max<int64_t>(u, 48);
      const Shape shape = split == SplitDim::kRows ? Shape{size, other} : Shape{other, size};
      expect_parts({spec, spec}, QuantInput(data, shape, dtype, turn), cut);
      ++turn;
      if (HasFailure()) return;
    }
  }
}

// Where nothing else keeps sixteen operand rows together, a stretch may end among them.
TEST(QuantizeSplit, StretchesOfAnyNumberOfOperandRows) {
  const QuantSpec bf16;
  for (const int hadamard : {0, 16, 64}) {
    for (const Rounding rounding : {Rounding::kNearest, Rounding::kStochastic}) {
      const QuantSpec spec = changed(nvfp4(), [&](QuantSpec& s) {
        s.rounding = rounding;
        s.hadamard = hadamard;
      });
      for (const Dtype dtype : {Dtype::kBf16, Dtype::kF32}) {
        const QuantInput tall(Data::kNarrow, {2 * (24 + 5 + 1), 384}, dtype, 0x5119);
        expect_parts({spec, bf16}, tall, {SplitDim::kRows, 2, {24, 5, 1}});
        const QuantInput wide(Data::kNarrow, {64, 2 * (72 + 5 + 1)}, dtype, 0x511A);
        expect_parts({bf16, spec}, wide, {SplitDim::kCols, 2, {72, 5, 1}});
      }
    }
  }
}

// Rows of an operand go on in other ranks where k is cut, and only there.
TEST(QuantizeSplit, AmaxesPerRow) {
  const QuantSpec rows = changed(nvfp4(), [](QuantSpec& s) { s.amax = AmaxScope::kRow; });
  const QuantSpec fp8 =
      changed(default_spec(QuantFormat::kFp8E4m3), [](QuantSpec& s) { s.amax = AmaxScope::kRow; });
  const QuantSpec bf16;
  for (const QuantSpec& spec : {rows, fp8}) {
    for (const Data data : {Data::kNarrow, Data::kNans}) {
      const QuantInput in(data, {64, 96}, Dtype::kBf16, 0x511B);
      const Cut down{SplitDim::kRows, 2, {32}}, across{SplitDim::kCols, 2, {16, 16, 16}};
      // The cut side's rows, behind a place for each side's own.
      EXPECT_EQ((Joined{0, 0}), expect_parts({spec, bf16}, in, down)[0]);
      EXPECT_EQ((Joined{1, 1 + 64}), expect_parts({spec, bf16}, in, across)[0]);
      EXPECT_EQ((Joined{1, 1 + 96}), expect_parts({bf16, spec}, in, down)[0]);
      EXPECT_EQ((Joined{0, 0}), expect_parts({bf16, spec}, in, across)[0]);
      EXPECT_EQ((Joined{1, 2 + 96}), expect_parts({spec, spec}, in, down)[0]);
      EXPECT_EQ((Joined{1, 2 + 64}), expect_parts({spec, spec}, in, across)[0]);
    }
  }
}

// All ranks call as often as the specs say, whatever they hold.
TEST(QuantizeSplit, JoinsOncePerPassAndOnlyWhereAnAmaxGoesBeyondTheSource) {
  const QuantInput in(Data::kNarrow, {256, 256}, Dtype::kBf16, 0x511C);
  const Cut cut{SplitDim::kRows, 2, {128}};
  const QuantSpec bf16, mxfp8 = default_spec(QuantFormat::kMxfp8E4m3);
  const QuantSpec fp8 = default_spec(QuantFormat::kFp8E4m3);
  const QuantSpec delayed = changed(fp8, [](QuantSpec& s) { s.amax = AmaxScope::kDelayed; });
  const QuantSpec groups = changed(nvfp4(), [](QuantSpec& s) { s.amax = AmaxScope::kGroup128; });
  const QuantSpec forward = changed(nvfp4(), [](QuantSpec& s) { s.source = Source::kForward; });
  const auto joins = [&](const QuantSpec& row, const QuantSpec& column) {
    return expect_parts({row, column}, in, cut)[0].calls;
  };
  EXPECT_EQ(0, joins(mxfp8, mxfp8));
  EXPECT_EQ(0, joins(delayed, delayed));
  EXPECT_EQ(0, joins(groups, groups));
  EXPECT_EQ(1, joins(nvfp4(), bf16));
  EXPECT_EQ(1, joins(nvfp4(), mxfp8));
  EXPECT_EQ(1, joins(nvfp4(), nvfp4()));
  EXPECT_EQ(1, joins(fp8, fp8));
  EXPECT_EQ(2, joins(nvfp4(), forward));  // the second of what the first made
  EXPECT_EQ(1, joins(mxfp8, forward));
  EXPECT_EQ((Joined{1, 2}), expect_parts({nvfp4(), fp8}, in, cut)[0]);
}

// The part with the small amax alone has another factor, so the tests above see a missing join.
TEST(QuantizeSplit, WithoutTheJoinAPartHasItsOwnFactor) {
  QuantInput in(Values(32 * 32, 1.0f), {32, 32}, Dtype::kBf16);
  in.x[0] = 64.0f;
  const Cut cut{SplitDim::kRows, 2, {16}};
  for (const QuantSpec& spec : {nvfp4(), default_spec(QuantFormat::kFp8E4m3)}) {
    const QuantInput whole(in.x, in.shape, in.dtype);
    QuantInput part = part_of(whole, cut, 1);
    QuantSide all = whole.side(spec, Orientation::kRowwise);
    QuantSide alone = part.side(spec, Orientation::kRowwise);
    Quantizer quantize;
    quantize(all.q, {}, whole);
    quantize(alone.q, {}, part);
    EXPECT_NE(all.scale.at(0, 0), alone.scale.at(0, 0)) << describe(spec);
    expect_parts({spec, spec}, whole, cut);
  }
}

// What is not finite on one rank decides the factors of all, and the flag of that rank alone.
TEST(QuantizeSplit, NotFiniteOnOneRank) {
  const Cut cut{SplitDim::kRows, 2, {128}};
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Values x = quant_data(Data::kNarrow, 256, 256, Dtype::kBf16, 0x511D);
    x[200 * 256 + 7] = bad;  // rank 1
    const QuantInput in(x, {256, 256}, Dtype::kBf16);
    for (const Pair& pair : recipe_pairs()) expect_parts(pair, in, cut);

    const QuantSpec fp8 = default_spec(QuantFormat::kFp8E4m3);
    run_ranks(2, [&](Comm& comm) {
      QuantInput part = part_of(in, cut, comm.rank());
      CommJoin join(comm);
      Guarded flag(Dtype::kI32, 1, 1);
      flag.set(0, 0, 0);
      ops::QuantStats stats;
      part.call.join = &join;
      part.call.non_finite = flag;
      part.call.row_stats = &stats;
      QuantSide side = part.side(fp8, Orientation::kRowwise);
      Quantizer quantize;
      quantize(side.q, {}, part);
      EXPECT_EQ(comm.rank() == 1 ? 1 : 0, flag.at(0, 0)) << "rank " << comm.rank();
      EXPECT_EQ(comm.rank() == 1 ? 1 : 0, stats.non_finite) << "rank " << comm.rank();
      EXPECT_EQ(side.scale.at(0, 0), stats.scale) << "rank " << comm.rank();
    });
  }
}

// Random bits count the elements of the micro-batches before, whole ones.
TEST(QuantizeSplit, MicroBatches) {
  const QuantSpec spec = changed(nvfp4(), [](QuantSpec& s) { s.rounding = Rounding::kStochastic; });
  std::vector<std::byte> before;
  for (const uint64_t micro_batch : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 33}) {
    QuantInput in(Data::kNarrow, {64, 320}, Dtype::kBf16, 0x511E);
    in.call.random.micro_batch = micro_batch;
    for (const Cut& cut : {Cut{SplitDim::kRows, 4, {16}}, Cut{SplitDim::kCols, 2, {96, 32, 32}}}) {
      expect_parts({spec, spec}, in, cut);
    }
    Sides sides({spec, spec}, in);
    Quantizer quantize;
    quantize(sides.row.q, sides.column.q, in);
    EXPECT_NE(before, sides.row.bits());
    before = sides.row.bits();
  }
}

// Larger than any cache, stretches that begin within a cache line: past the caches goes only what
// is aligned.
TEST(QuantizeSplit, StretchesWithinCacheLines) {
  constexpr int64_t kRows = 1024, kCols = 16416;
  const int64_t bytes = kRows * kCols * 2;
  ASSERT_GT(bytes, int64_t{32} << 20);
  const ops::Buffer memory = ops::allocate_host(3 * bytes);
  auto* const numbers = static_cast<uint16_t*>(memory.data());
  for (int64_t i = 0; i < kRows * kCols; ++i) {  // in [-2, -1/2] and [1/2, 2]
    const uint64_t z = static_cast<uint64_t>(i) * 0x9E3779B97F4A7C15ull;
    numbers[i] = static_cast<uint16_t>(0x3F00u + (z >> 56) + (z >> 40 & 0x8000u));
  }
  const auto at = [&](int64_t i) {
    return ops::matrix(static_cast<char*>(memory.data()) + i * bytes, Dtype::kBf16, kRows, kCols);
  };
  const QuantInput random(Data::kZero, {16, 16}, Dtype::kBf16, 1);
  for (const Orientation orientation : {Orientation::kRowwise, Orientation::kColumnwise}) {
    Guarded scale(Dtype::kF32, 1, 1);
    ops::QuantizedTensor whole{.spec = nvfp4(),
                               .orientation = orientation,
                               .values = at(1),
                               .scale = scale,
                               .tile_scales = {}};
    whole.spec.rounding = Rounding::kStochastic;
    ops::QuantizedTensor cut = whole;
    cut.values = at(2);
    ops::QuantCall call = random.call;
    ops::Workspace workspace;
    const bool rowwise = orientation == Orientation::kRowwise;
    const auto quantize = [&](const ops::QuantizedTensor& q) {
      ops::cpu::quantize(rowwise ? q : ops::QuantizedTensor{}, rowwise ? ops::QuantizedTensor{} : q,
                         at(0), call, workspace);
    };
    quantize(whole);
    call.place = {.split = SplitDim::kCols,
                  .size = kCols,
                  .n_stretches = 2,
                  .stretches = {{{0, 0}, {16, 16}}}};
    quantize(cut);
    EXPECT_EQ(0, std::memcmp(whole.values.data, cut.values.data, static_cast<size_t>(bytes)));
  }
}

TEST(QuantizeSplit, PlacesThatCannotBeAreRefused) {
  const QuantInput in(Data::kNarrow, {64, 64}, Dtype::kBf16, 0x511F);
  const auto quantized = [&](const QuantSpec& spec, const LogicalPlace& place) {
    QuantInput call(in.x, in.shape, in.dtype);
    call.call.place = place;
    QuantSide row = call.side(spec, Orientation::kRowwise);
    Quantizer()(row.q, {}, call);
  };
  using Stretches = std::vector<LogicalPlace::Stretch>;
  const auto place = [](SplitDim split, int64_t size, const Stretches& stretches) {
    LogicalPlace p{.split = split, .size = size};
    for (const auto& s : stretches) p.stretches[static_cast<size_t>(p.n_stretches++)] = s;
    return p;
  };
  const SplitDim rows = SplitDim::kRows, cols = SplitDim::kCols;
  EXPECT_NO_THROW(quantized(nvfp4(), place(rows, 128, {{0, 16}, {16, 80}})));
  EXPECT_NO_THROW(quantized(nvfp4(), place(cols, 128, {{0, 64}})));
  EXPECT_NO_THROW(quantized(nvfp4(), place(rows, 128, {{0, 3}, {5, 9}})));  // rows of their own
  EXPECT_THROW(quantized(nvfp4(), place(rows, 128, {})), ops::Error);
  EXPECT_THROW(quantized(nvfp4(), place(rows, 128, {{16, 16}})), ops::Error);  // not all of it
  EXPECT_THROW(quantized(nvfp4(), place(rows, 128, {{0, -16}})), ops::Error);
  EXPECT_THROW(quantized(nvfp4(), place(rows, 128, {{0, 80}})), ops::Error);  // beyond its end
  EXPECT_THROW(quantized(nvfp4(), place(rows, 128, {{0, 0}, {0, 64}})), ops::Error);
  EXPECT_THROW(quantized(nvfp4(), place(rows, 128, {{0, 16}, {32, 32}})), ops::Error);  // overlap
  EXPECT_THROW(quantized(nvfp4(), place(rows, 256, {{0, 128}, {32, 0}})), ops::Error);  // order
  EXPECT_THROW(quantized(nvfp4(), place(cols, 128, {{0, 8}})), ops::Error);
  EXPECT_THROW(quantized(nvfp4(), place(cols, 128, {{0, 0}, {24, 32}})), ops::Error);
  EXPECT_THROW(quantized(with_block(nvfp4(), {16, 16}), place(rows, 128, {{0, 3}, {5, 9}})),
               ops::Error);
  EXPECT_THROW(quantized(default_spec(QuantFormat::kMxfp8E4m3), place(cols, 128, {{0, 16}})),
               ops::Error);
  QuantSpec rht = nvfp4();
  rht.hadamard = 64;
  EXPECT_THROW(quantized(rht, place(cols, 128, {{0, 32}})), ops::Error);
}

}  // namespace
}  // namespace qstep::test
