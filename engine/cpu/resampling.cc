// Pictures of 8-bit levels in another size, for engine/data/resampling.py: each level is a sum of neighbours by weights
// in fixed point, along one axis and then along the other, rounded twice.

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

constexpr int POINT = 22;  // bits of a weight behind the point

typedef int32_t Four __attribute__((vector_size(16)));
typedef int32_t InMemory __attribute__((vector_size(16), aligned(4), may_alias));

// For each of `size` places along an axis, from which one before it is a sum of `count`, and by which weights.
struct Taps {
  int64_t size, count;
  const int32_t *first, *weights;
};

// What GCC takes in whole vectors only if source and target are known not to overlap.
void widen(const uint8_t* __restrict from, int64_t count, int32_t* __restrict to) {
  for (int64_t n = 0; n < count; ++n) to[n] = from[n];
}

void round(const int32_t* __restrict sums, int64_t count, uint8_t* __restrict to) {
  for (int64_t n = 0; n < count; ++n) to[n] = std::clamp((sums[n] + (1 << (POINT - 1))) >> POINT, 0, 255);
}

// [w c] → sums [x c]. The three channels of a pixel are added up at once, and the first of the next, which is not kept:
// both have room for one more.
void add_columns(const int32_t* levels, int64_t c, Taps taps, int32_t* sums) {
  const int32_t* weights = taps.weights;
  for (int64_t x = 0; x < taps.size; ++x, weights += taps.count, sums += c) {
    const int32_t* from = levels + taps.first[x] * c;
    if (c == 3) {
      Four sum = {};
      for (int64_t t = 0; t < taps.count; ++t) sum += *reinterpret_cast<const InMemory*>(from + 3 * t) * weights[t];
      *reinterpret_cast<InMemory*>(sums) = sum;
    } else {
      *sums = 0;
      for (int64_t t = 0; t < taps.count; ++t) *sums += from[t] * weights[t];
    }
  }
}

// [h w c] → [h x c]
void resample_rows(const uint8_t* from, int64_t h, int64_t w, int64_t c, Taps columns, uint8_t* to) {
  static thread_local std::vector<int32_t> levels, sums;
  levels.resize(w * c + 1), sums.resize(columns.size * c + 1);
  for (int64_t n = 0; n < h; ++n, from += w * c, to += columns.size * c) {
    widen(from, w * c, levels.data());
    add_columns(levels.data(), c, columns, sums.data());
    round(sums.data(), columns.size * c, to);
  }
}

// [h length] → [y length]
void resample_columns(const uint8_t* from, int64_t length, Taps rows, uint8_t* to) {
  static thread_local std::vector<int32_t> memory;
  memory.resize(length);
  const int32_t* weight = rows.weights;
  for (int64_t n = 0; n < rows.size; ++n, to += length) {
    int32_t* __restrict sums = memory.data();
    std::fill_n(sums, length, 0);
    const uint8_t* __restrict row = from + rows.first[n] * length;
    for (int64_t t = 0; t < rows.count; ++t, ++weight, row += length)
      for (int64_t i = 0; i < length; ++i) sums[i] += row[i] * *weight;
    round(sums, length, to);
  }
}

}  // namespace

// levels [h w c] → made [y x c], c 1 or 3, each row alone and then row with row, or the other way round. between: room
// for [h x c], or [y w c].
extern "C" void engine_resample(int64_t h, int64_t w, int64_t c, int64_t y, int64_t row_taps, int64_t x,
                                int64_t column_taps, bool is_row_first, const uint8_t* levels, uint8_t* between,
                                uint8_t* made, const int32_t* row_weights, const int32_t* first_row,
                                const int32_t* column_weights, const int32_t* first_column) {
  Taps rows = {y, row_taps, first_row, row_weights}, columns = {x, column_taps, first_column, column_weights};
  if (is_row_first) {
    resample_rows(levels, h, w, c, columns, between);
    resample_columns(between, x * c, rows, made);
  } else {
    resample_columns(levels, w * c, rows, between);
    resample_rows(between, y, w, c, columns, made);
  }
}
