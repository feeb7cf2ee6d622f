// Pictures of 8-bit levels in another size, for engine/data/pictures/resampling.py: each level is a sum of neighbours by weights
// in fixed point, along one axis and then along the other, rounded twice.

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__clang__)
#define SHUFFLED(one, other, ...) __builtin_shufflevector(one, other, __VA_ARGS__)
#else
#define SHUFFLED(one, other, ...) __builtin_shuffle(one, other, Bytes{__VA_ARGS__})
#endif

namespace {

constexpr int POINT = 22;       // bits of a weight behind the point
constexpr int64_t BLOCK = 64;   // levels whose sums are held at once
constexpr int64_t STRIP = 32;   // rows of a picture that are turned at once, to stay in the first cache

typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef uint8_t InMemory __attribute__((vector_size(16), aligned(1), may_alias));

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

#if defined(__AVX2__)
// The sums of 32 levels from each of `count` rows. Two rows are multiplied and added by one instruction, which takes 16
// bits: so weights are cut in two, and what their upper bits give is moved back by as many bits at the end.
template <int COUNT>
void add_block(const uint8_t* from, const int32_t* weights, int64_t count, int64_t length, uint8_t* to) {
  constexpr int LOW = POINT / 2;
  const int64_t taps = COUNT ? COUNT : count;
  const __m256i none = _mm256_setzero_si256();
  __m256i upper[4] = {none, none, none, none}, lower[4];
  std::fill_n(lower, 4, _mm256_set1_epi32(HALF));
  auto row = [&](int64_t t) {
    return t < taps ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + t * length)) : none;
  };
  for (int64_t t = 0; t < taps; t += 2) {
    int32_t one = weights[t], other = t + 1 < taps ? weights[t + 1] : 0;
    __m256i high = _mm256_set1_epi32(one >> LOW | (other >> LOW) << 16);
    __m256i low = _mm256_set1_epi32((one & ((1 << LOW) - 1)) | (other & ((1 << LOW) - 1)) << 16);
    __m256i first = row(t), second = row(t + 1);
    __m256i near = _mm256_unpacklo_epi8(first, second), far = _mm256_unpackhi_epi8(first, second);
    __m256i pairs[4] = {_mm256_unpacklo_epi8(near, none), _mm256_unpackhi_epi8(near, none),
                        _mm256_unpacklo_epi8(far, none), _mm256_unpackhi_epi8(far, none)};
    for (int k = 0; k < 4; ++k) {
      upper[k] = _mm256_add_epi32(upper[k], _mm256_madd_epi16(pairs[k], high));
      lower[k] = _mm256_add_epi32(lower[k], _mm256_madd_epi16(pairs[k], low));
    }
  }
  for (int k = 0; k < 4; ++k)
    lower[k] = _mm256_srai_epi32(_mm256_add_epi32(lower[k], _mm256_slli_epi32(upper[k], LOW)), POINT);
  __m256i near = _mm256_packs_epi32(lower[0], lower[1]), far = _mm256_packs_epi32(lower[2], lower[3]);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_packus_epi16(near, far));  // 0 to 255
}
#endif

// Rows [taps length] → one [length].
template <int COUNT>
void add_rows(const uint8_t* __restrict from, const int32_t* weights, int64_t count, int64_t length,
              uint8_t* __restrict to) {
  int64_t i = 0;
#if defined(__AVX2__)
  for (; i + 32 <= length; i += 32) add_block<COUNT>(from + i, weights, count, length, to + i);
#endif
  for (; i < length; i += BLOCK) {
    int32_t sums[BLOCK];
    int64_t size = std::min(BLOCK, length - i);
    std::fill_n(sums, BLOCK, HALF);
    for (int64_t t = 0; t < (COUNT ? COUNT : count); ++t)
      for (int64_t k = 0; k < size; ++k) sums[k] += from[t * length + i + k] * weights[t];
    for (int64_t k = 0; k < size; ++k) to[i + k] = level(sums[k]);
  }
}

// [h length] → [y length]
void resample_columns(const uint8_t* from, int64_t length, Taps rows, uint8_t* to) {
  for_count(rows, [&](auto count) {
    for (int64_t n = 0; n < rows.size; ++n)
      add_rows<count.value>(from + rows.first[n] * length, rows.weights + n * rows.count, rows.count, length,
                            to + n * length);
  });
}

// [16 16] → its transpose: what is 8 apart is made neighbours, four times.
void transpose_block(const uint8_t* from, int64_t from_pitch, uint8_t* to, int64_t to_pitch) {
  Bytes rows[16], mixed[16];
  for (int i = 0; i < 16; ++i) rows[i] = *reinterpret_cast<const InMemory*>(from + i * from_pitch);
  for (int step = 0; step < 4; ++step) {
    for (int i = 0; i < 8; ++i) {
      mixed[2 * i] = SHUFFLED(rows[i], rows[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      mixed[2 * i + 1] = SHUFFLED(rows[i], rows[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    std::copy_n(mixed, 16, rows);
  }
  for (int i = 0; i < 16; ++i) *reinterpret_cast<InMemory*>(to + i * to_pitch) = rows[i];
}

// [rows columns] → [columns rows]; the last blocks lie over those before them.
void transpose(const uint8_t* from, int64_t rows, int64_t columns, int64_t from_pitch, uint8_t* to, int64_t to_pitch) {
  if (rows < 16 || columns < 16) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) to[c * to_pitch + r] = from[r * from_pitch + c];
    return;
  }
  for (int64_t i = 0; i < rows; i += 16)
    for (int64_t k = 0; k < columns; k += 16) {
      int64_t r = std::min(i, rows - 16), c = std::min(k, columns - 16);
      transpose_block(from + r * from_pitch + c, from_pitch, to + c * to_pitch + r, to_pitch);
    }
}

// [h w c] → [h x c]: strips of rows are turned, so that rows are columns, and turned back; the last lies over others.
void resample_rows(const uint8_t* from, int64_t h, int64_t w, int64_t c, Taps columns, uint8_t* to) {
  static thread_local std::vector<uint8_t> turned, made;
  int64_t strip = std::min(h, STRIP), before = w * c, after = columns.size * c;
  turned.resize(before * strip), made.resize(after * strip);
  for (int64_t n = 0; n < h; n += strip) {
    int64_t first = std::min(n, h - strip);
    transpose(from + first * before, strip, before, before, turned.data(), strip);
    resample_columns(turned.data(), c * strip, columns, made.data());
    transpose(made.data(), after, strip, strip, to + first * after, after);
  }
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
