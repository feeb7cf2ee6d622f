// Pictures of 8-bit levels in another size, for engine/data/resampling.py: each level is a sum of neighbours by weights
// in fixed point, along one axis and then along the other, rounded twice.

#include <algorithm>
#include <cstdint>
#include <type_traits>
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

constexpr int32_t HALF = 1 << (POINT - 1);

inline uint8_t level(int32_t sum) { return std::clamp(sum >> POINT, 0, 255); }

// Calls work(count): a constant, where there are as few taps as in most pictures that become a little smaller, else 0.
template <typename Work>
void for_count(const Taps& taps, const Work& work) {
  if (taps.count == 2) work(std::integral_constant<int, 2>());
  else if (taps.count == 3) work(std::integral_constant<int, 3>());
  else if (taps.count == 4) work(std::integral_constant<int, 4>());
  else work(std::integral_constant<int, 0>());
}

// Levels of a row [w c] → sums [x c]. The three channels of a pixel are added up at once, and the first of the next,
// which is not kept: both have room for one more.
template <int COUNT>
void add_columns(const int32_t* levels, int64_t c, Taps taps, int32_t* sums) {
  int64_t count = COUNT ? COUNT : taps.count;
  const int32_t* weights = taps.weights;
  for (int64_t x = 0; x < taps.size; ++x, weights += count, sums += c) {
    const int32_t* from = levels + taps.first[x] * c;
    if (c == 3) {
      Four sum = Four{} + HALF;
      for (int64_t t = 0; t < count; ++t) sum += *reinterpret_cast<const InMemory*>(from + 3 * t) * weights[t];
      *reinterpret_cast<InMemory*>(sums) = sum;
    } else {
      *sums = HALF;
      for (int64_t t = 0; t < count; ++t) *sums += from[t] * weights[t];
    }
  }
}

// [h w c] → [h x c]
void resample_rows(const uint8_t* __restrict from, int64_t h, int64_t w, int64_t c, Taps columns,
                   uint8_t* __restrict to) {
  static thread_local std::vector<int32_t> levels_memory, sums_memory;
  levels_memory.resize(w * c + 1), sums_memory.resize(columns.size * c + 1);
  int32_t *__restrict levels = levels_memory.data(), *__restrict sums = sums_memory.data();
  for_count(columns, [&](auto count) {
    for (int64_t n = 0; n < h; ++n, from += w * c, to += columns.size * c) {
      for (int64_t i = 0; i < w * c; ++i) levels[i] = from[i];
      add_columns<count.value>(levels, c, columns, sums);
      for (int64_t i = 0; i < columns.size * c; ++i) to[i] = level(sums[i]);
    }
  });
}

// Rows [taps length] → one [length].
template <int COUNT>
void add_rows(const uint8_t* __restrict from, const int32_t* weights, int64_t count, int64_t length,
              int32_t* __restrict sums, uint8_t* __restrict to) {
  if constexpr (COUNT > 0) {
    for (int64_t i = 0; i < length; ++i) {
      int32_t sum = HALF;
      for (int t = 0; t < COUNT; ++t) sum += from[t * length + i] * weights[t];
      to[i] = level(sum);
    }
  } else {
    std::fill_n(sums, length, HALF);
    for (int64_t t = 0; t < count; ++t, from += length)
      for (int64_t i = 0; i < length; ++i) sums[i] += from[i] * weights[t];
    for (int64_t i = 0; i < length; ++i) to[i] = level(sums[i]);
  }
}

// [h length] → [y length]
void resample_columns(const uint8_t* from, int64_t length, Taps rows, uint8_t* to) {
  static thread_local std::vector<int32_t> sums;
  sums.resize(length);
  for_count(rows, [&](auto count) {
    for (int64_t n = 0; n < rows.size; ++n)
      add_rows<count.value>(from + rows.first[n] * length, rows.weights + n * rows.count, rows.count, length,
                            sums.data(), to + n * length);
  });
}

}  // namespace

// levels [h w c] → made [y x c], c 1 or 3, each row alone and then row with row, or the other way round.
// between: room for [h x c], or [y w c].
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
