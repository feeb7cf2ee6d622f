// Max-pools over rows of maps, and the way back.

#pragma once

#include "shapes.h"
#include "vectors.h"

constexpr uint8_t NO_WINNER = 255;  // of a window whose largest value did not stay, for it was not positive

inline uint8_t* after(uint8_t* winners, int64_t offset) { return winners ? winners + offset : nullptr; }

// The largest of a window's values, taken one after another, and, if needed, its position: the first of
// equals. NaN counts as largest; its place is any.
template <bool HAS_WINNERS>
struct Largest {
  Vector value;
  Numbering winner = {};

  void take(Vector other, int64_t place) {
    if (HAS_WINNERS) winner = (other > value) ? Numbering{} + static_cast<int32_t>(place) : winner;
    Vector larger = (value > other) ? value : other;  // other, if one is NaN
    value = (value != value) ? value : larger;
  }

  // With the largest of a column of two values, at places 0 and 2, that of the column to the right.
  void take_column(const Largest& right) {
    Vector left = value;
    if (HAS_WINNERS) {
      auto is_first = (right.value == left) & (winner > right.winner);  // of equals
      winner = ((right.value > left) | is_first) ? right.winner + 1 : winner;
    }
    Vector larger = (left > right.value) ? left : right.value;
    value = (left != left) ? left : larger;
  }

  // Puts it, or its positive part, and its place.
  void put(bool is_relu, int64_t at, float* out, uint8_t* winners) const {
    store(out + at, is_relu ? positive(value) : value);
    if (!HAS_WINNERS) return;
    Numbering kept = is_relu ? (value > 0) ? winner : Numbering{} + NO_WINNER : winner;
    Places places = __builtin_convertvector(kept, Places);
    std::memcpy(winners + at, &places, LANES);
  }
};

// The largest of each window of rows of maps, and, if winners is not null, at which place it is. `H` and `W` are the
// window's, if not 0.
template <int H, int W, bool HAS_WINNERS>
void pool_windows(const float* maps, const Shape& s, const Pool& p, int64_t rows, bool is_relu, float* out,
                  uint8_t* winners) {
  int64_t h = H ? H : p.h, w = W ? W : p.w, at = 0;
  for (int64_t y = 0; y < rows; ++y)
    for (int64_t x = 0; x < p.x; ++x)
      for (int64_t o = 0; o < s.o; o += LANES, at += LANES) {
        const float* from = maps + (y * p.stride_h * s.x + x * p.stride_w) * s.o + o;
        Largest<HAS_WINNERS> largest{load(from)};
        for (int64_t i = 0; i < h; ++i)
          for (int64_t j = !i; j < w; ++j) largest.take(load(from + (i * s.x + j) * s.o), i * w + j);
        largest.put(is_relu, at, out, winners);
      }
}

// The same for windows of 2x2 that overlap in both directions: the larger value of a column is found once for two windows.
template <bool HAS_WINNERS>
void pool_overlapping(const float* maps, const Shape& s, const Pool& p, int64_t rows, bool is_relu, float* out,
                      uint8_t* winners) {
  auto column = [&s](const float* from) {
    Largest<HAS_WINNERS> largest{load(from)};
    largest.take(load(from + s.x * s.o), 2);
    return largest;
  };
  for (int64_t y = 0; y < rows; ++y, maps += s.x * s.o)
    for (int64_t o = 0; o < s.o; o += LANES) {
      const float* from = maps + o;
      int64_t at = y * p.x * s.o + o;
      auto left = column(from);
      for (int64_t x = 0; x < p.x; ++x, at += s.o) {
        auto right = column(from += s.o);
        left.take_column(right), left.put(is_relu, at, out, winners);
        left = right;
      }
    }
}

inline void pool_rows(const float* maps, const Shape& s, const Pool& p, int64_t rows, bool is_relu, float* out,
                      uint8_t* winners) {
  if (p.overlaps_by_one())
    return (winners ? pool_overlapping<true> : pool_overlapping<false>)(maps, s, p, rows, is_relu, out, winners);
  bool is_square = p.h == 2 && p.w == 2;
  auto work = is_square ? (winners ? pool_windows<2, 2, true> : pool_windows<2, 2, false>)
                        : (winners ? pool_windows<0, 0, true> : pool_windows<0, 0, false>);
  work(maps, s, p, rows, is_relu, out, winners);
}

// As unpool_rows, for windows of 2x2 that overlap in both directions: what neighbours share is added in registers, in
// the same order, and what lies below them needs no zeros, but for the first row.
inline void unpool_overlapping(const float* gradient, const uint8_t* winners, const Shape& s, const Pool& p,
                               int64_t rows, int64_t pitch, float* maps, float* to_bias) {
  std::fill_n(maps, p.columns() * s.o, 0.f);
  for (int64_t y = 0; y < rows; ++y, gradient += p.x * s.o, winners += p.x * s.o, maps += pitch)
    for (int64_t o = 0; o < s.o; o += LANES) {
      Vector sum = {}, above = {}, below = {};
      float *upper = maps + o, *lower = upper + pitch;
      for (int64_t x = 0; x < p.x; ++x, upper += s.o, lower += s.o) {
        Places places;
        std::memcpy(&places, winners + x * s.o + o, LANES);
        Numbering winner = __builtin_convertvector(places, Numbering);
        Vector value = load(gradient + x * s.o + o);
        auto share = [&](int32_t place) { return (winner == place) ? value : Vector{}; };
        sum += (winner == NO_WINNER) ? Vector{} : value;
        store(upper, load(upper) + above + share(0)), store(lower, below + share(2));
        above = share(1), below = share(3);
      }
      store(upper, load(upper) + above), store(lower, below);
      store(to_bias + o, load(to_bias + o) + sum);
    }
}

// Puts the gradients of rows of windows where the largest values were, in rows of maps `pitch` floats apart, and adds
// them to the gradient of the bias, row by row, so that long sums stay exact. Where windows cover the maps, the rest of
// each becomes zero, else it must be zero.
inline void unpool_rows(const float* gradient, const uint8_t* winners, const Shape& s, const Pool& p, int64_t rows,
                        int64_t pitch, float* maps, float* to_bias) {
  if (p.overlaps_by_one()) return unpool_overlapping(gradient, winners, s, p, rows, pitch, maps, to_bias);
  bool covers = p.covers();
  for (int64_t y = 0; y < rows; ++y, gradient += p.x * s.o, winners += p.x * s.o, maps += p.stride_h * pitch)
    for (int64_t o = 0; o < s.o; o += LANES) {
      Vector sum = {};
      for (int64_t x = 0; x < p.x; ++x) {
        float* to = maps + x * p.stride_w * s.o + o;
        Places places;
        std::memcpy(&places, winners + x * s.o + o, LANES);
        Numbering winner = __builtin_convertvector(places, Numbering);
        Vector value = (winner == NO_WINNER) ? Vector{} : load(gradient + x * s.o + o);
        sum += value;
        for (int64_t i = 0, n = 0; i < p.h; ++i)
          for (int64_t j = 0; j < p.w; ++j, ++n) {
            float* place = to + i * pitch + j * s.o;
            Vector share = (winner == static_cast<int32_t>(n)) ? value : Vector{};
            store(place, covers ? share : load(place) + share);
          }
      }
      store(to_bias + o, load(to_bias + o) + sum);
    }
}

// The same without a pool: of the gradients of rows of maps those that pass a relu, if these are its outputs.
inline void pass_rows(const float* gradient, const float* outputs, const Shape& s, int64_t rows, int64_t pitch,
                      float* maps, float* to_bias) {
  for (int64_t y = 0; y < rows; ++y, gradient += s.x * s.o, outputs += outputs ? s.x * s.o : 0, maps += pitch)
    for (int64_t o = 0; o < s.o; o += LANES) {
      Vector sum = {};
      for (int64_t n = o; n < s.x * s.o; n += s.o) {
        Vector value = load(gradient + n);
        if (outputs) value = (load(outputs + n) > 0) ? value : Vector{};
        store(maps + n, value);
        sum += value;
      }
      store(to_bias + o, load(to_bias + o) + sum);
    }
}
