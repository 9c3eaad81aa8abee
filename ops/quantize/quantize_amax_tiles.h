// The first pass of the block-scaled quantizers on a GPU, where a factor of the tensor or of a row
// comes before the codes: amaxes of both orientations, behind their Hadamard transforms. Reads two
// bytes per element of a BF16 source and writes nothing to speak of.
#pragma once

#include "ops/quantize/quantize_tile_work.h"

namespace qstep::ops::device {

// Raises the amaxes of the sides that have any.
template <int kUnit>
struct AmaxTiles : TileWork<kUnit, (kUnit > 64 ? 128 : 64)> {
  using Base = TileWork<kUnit, (kUnit > 64 ? 128 : 64)>;
  using Base::kTile, Base::sides, Base::source, Base::n_sides;

  int shared_bytes() const {
    return tile_bytes<kTile>(source.bf16) + 2 * kTile * static_cast<int>(sizeof(uint32_t));
  }

  template <class Team>
  QSTEP_HD void operator()(const Team& team, char* shared, int64_t block) const {
    const TilePlace at = tile_place<kTile>(source.cols, block);
    // Per side and line of the tile; the first of a side for the tensor.
    auto* const found = reinterpret_cast<uint32_t*>(shared + tile_bytes<kTile>(source.bf16));
    team.each(2 * kTile, [&](int64_t i) { found[i] = 0; });
    this->load_tile(team, shared, at);
    team.sync();
    uint32_t of_thread[2] = {};  // the largest of its units, for the tensor
    this->each_unit(team, at, [&](const TileSide& side, int s, const auto& job) {
      if (side.amax == nullptr) return;
      float v[kUnit];
      this->load_unit(shared, side, job, v);
      precision::hadamard_unit<kUnit>(side.lines.plan, v);
      const auto own = precision::amax_of<kUnit>(v);
      const uint32_t amax = side.lines.keeps_nan() ? own.raw : precision::bits(own.amax);
      if (side.per_line()) {
        raise_in_block(found + s * kTile + (side.lines.along_rows ? job.row : job.col), amax);
      } else {
        QSTEP_UNROLL(2)
        for (int t = 0; t < 2; ++t) {
          of_thread[t] = precision::max_bits(of_thread[t], t == s ? amax : 0u);
        }
      }
      this->note(own.raw);
    });
    team.each(Base::kThreads, [&](int64_t) {
      QSTEP_UNROLL(2)
      for (int t = 0; t < 2; ++t) raise_together(found + t * kTile, of_thread[t]);
    });
    team.sync();
    team.each(n_sides * kTile, [&](int64_t i) {
      const TileSide& side = sides[i / kTile];
      const int64_t begin = side.lines.along_rows ? at.row : at.col;
      const uint32_t amax = found[i];
      if (amax > 0) raise(side.amax + (side.per_line() ? begin + i % kTile : 0), amax);
    });
  }
};

}  // namespace qstep::ops::device
