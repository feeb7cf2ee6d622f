// The sums of products of a quantized convolution, four channels at once, by AVX512-VNNI.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>

#include "threads.h"

#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#define INLINE_VNNI VNNI inline __attribute__((always_inline))

namespace quantized {

// Images [b h w c], maps or, with a pool, the largest of each 2x2 of them [b y x o]. Pads are in front; behind them is
// as much as there must be. groups: fours of values of a row of the kernel, the last filled with zero weights.
struct Shape {
  int64_t b, h, w, c, kh, kw, groups, o, y, x, stride_h, stride_w, dilation_h, top, left;
  bool is_pooled;
  int64_t rows(int64_t outputs) const { return is_pooled ? 2 * outputs : outputs; }
  int64_t rows_below(int64_t outputs) const { return (rows(outputs) - 1) * stride_h + (kh - 1) * dilation_h + 1; }
  // Bytes of a row of pixels that are read, of those that there are and of padding.
  int64_t row() const { return ((rows(x) - 1) * stride_w + kw) * c; }
  int64_t vectors() const { return (o + 15) / 16; }
};

// sum -> zero + round(sum * factor), between least and largest, which are relative to zero.
struct Tail {
  const int32_t* bias;
  const float* factors;
  int32_t zero;
  float least, largest;
};

// Rows of pixels, `pitch` bytes apart.
struct Rows {
  const uint8_t* values;
  int64_t pitch;
};

// VECTORS times 16 filters at ROWS x PIXELS neighbours.
template <int VECTORS, int ROWS, int PIXELS>
INLINE_VNNI void add_up(Rows in, const int8_t* kernel, const Shape& s, __m512i (&sums)[ROWS][PIXELS][VECTORS]) {
  const int64_t step = s.stride_w * s.c, next = s.stride_h * in.pitch, apart = s.vectors() * 64;
  const uint8_t* row = in.values;
  for (int64_t i = 0; i < s.kh; ++i, row += s.dilation_h * in.pitch) {
    const uint8_t* at = row;
    for (int64_t g = 0; g < s.groups; ++g, at += 4, kernel += apart) {
      __m512i weights[VECTORS];
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) weights[v] = _mm512_loadu_si512(kernel + 64 * v);
#pragma GCC unroll 2
      for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 12
        for (int p = 0; p < PIXELS; ++p) {
          int32_t four;
          std::memcpy(&four, at + r * next + p * step, 4);
          __m512i values = _mm512_set1_epi32(four);
#pragma GCC unroll 4
          for (int v = 0; v < VECTORS; ++v) sums[r][p][v] = _mm512_dpbusd_epi32(sums[r][p][v], values, weights[v]);
        }
    }
  }
}

INLINE_VNNI void finish(__m512i sums, const Tail& tail, int64_t filter, __mmask16 some, uint8_t* bytes, float* floats) {
  __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_maskz_loadu_ps(some, tail.factors + filter));
  if (floats) return _mm512_mask_storeu_ps(floats, some, value);
  value = _mm512_min_ps(_mm512_max_ps(value, _mm512_set1_ps(tail.least)), _mm512_set1_ps(tail.largest));
  __m512i whole = _mm512_add_epi32(_mm512_cvtps_epi32(value), _mm512_set1_epi32(tail.zero));
  _mm512_mask_cvtepi32_storeu_epi8(bytes, some, whole);
}

template <int VECTORS, int ROWS, int PIXELS>
VNNI void block(Rows in, const int8_t* kernel, const Shape& s, const Tail& tail, int64_t filter, uint8_t* bytes,
                float* floats) {
  constexpr bool POOLED = ROWS == 2;
  __m512i sums[ROWS][PIXELS][VECTORS];
  __mmask16 some[VECTORS];
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; ++v) {
    int64_t left = s.o - filter - 16 * v;
    some[v] = left >= 16 ? 0xffff : (1 << left) - 1;
    __m512i bias = _mm512_maskz_loadu_epi32(some[v], tail.bias + filter + 16 * v);
#pragma GCC unroll 2
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 12
      for (int p = 0; p < PIXELS; ++p) sums[r][p][v] = bias;
  }
  add_up<VECTORS, ROWS, PIXELS>(in, kernel, s, sums);
#pragma GCC unroll 12
  for (int p = 0; p < PIXELS; p += POOLED ? 2 : 1)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) {
      __m512i sum = sums[0][p][v];
      if constexpr (POOLED)
        sum = _mm512_max_epi32(_mm512_max_epi32(sum, sums[0][p + 1][v]),
                               _mm512_max_epi32(sums[1][p][v], sums[1][p + 1][v]));
      int64_t to = (POOLED ? p / 2 : p) * s.o + 16 * v;
      finish(sum, tail, filter + 16 * v, some[v], bytes ? bytes + to : nullptr, floats ? floats + to : nullptr);
    }
}

// A row of outputs, in blocks of so many and what is left.
template <int VECTORS, int ROWS, int MOST>
void row(Rows in, const int8_t* kernel, const Shape& s, const Tail& tail, int64_t filter, uint8_t* bytes, float* floats) {
  int64_t step = ROWS * s.stride_w * s.c;  // of ROWS pixels an output
  int64_t left = s.x;
  auto some = [&](auto count) {
    constexpr int N = decltype(count)::value;
    block<VECTORS, ROWS, N * ROWS>(in, kernel, s, tail, filter, bytes, floats);
    in.values += N * step, left -= N;
    if (bytes) bytes += N * s.o;
    if (floats) floats += N * s.o;
  };
  while (left >= MOST) some(std::integral_constant<int, MOST>());
  if constexpr (MOST > 8) if (left >= 8) some(std::integral_constant<int, 8>());
  if constexpr (MOST > 5) if (left == 5) some(std::integral_constant<int, 5>());
  if constexpr (MOST > 4) if (left >= 4) some(std::integral_constant<int, 4>());
  if constexpr (MOST > 3) if (left >= 3) some(std::integral_constant<int, 3>());
  if constexpr (MOST > 2) if (left >= 2) some(std::integral_constant<int, 2>());
  if constexpr (MOST > 1) if (left >= 1) some(std::integral_constant<int, 1>());
}

template <int VECTORS>
void rows(Rows in, int64_t count, const int8_t* kernel, const Shape& s, const Tail& tail, int64_t filter, uint8_t* bytes,
          float* floats) {
  for (int64_t y = 0; y < count; ++y) {
    if (s.is_pooled) row<VECTORS, 2, VECTORS == 1 ? 4 : VECTORS == 2 ? 3 : 1>(in, kernel, s, tail, filter, bytes, floats);
    else row<VECTORS, 1, VECTORS == 1 ? 12 : VECTORS == 2 ? 10 : 6>(in, kernel, s, tail, filter, bytes, floats);
    in.values += s.rows(1) * s.stride_h * in.pitch;
    if (bytes) bytes += s.x * s.o;
    if (floats) floats += s.x * s.o;
  }
}

// Memory of a thread that only grows.
inline uint8_t* memory_of(int64_t size) {
  static thread_local std::unique_ptr<uint8_t[]> memory;
  static thread_local int64_t room = 0;
  if (size > room) memory.reset(new uint8_t[size]), room = size;
  return memory.get();
}

// The rows that outputs from `first` on depend on, with the pixels at the edge around them, and something behind them.
inline Rows below(const uint8_t* image, const uint8_t* edge, const Shape& s, int64_t first, int64_t count) {
  int64_t begin = s.rows(first) * s.stride_h - s.top, high = s.rows_below(count), row = s.row();
  int64_t size = s.w * s.c, before = std::min(s.left * s.c, row), inside = std::min(row - before, size);
  bool is_whole = begin >= 0 && begin + high <= s.h && before == 0 && row <= size;
  if (is_whole && (s.kw * s.c) % 4 == 0) return {image + begin * size, size};
  uint8_t *memory = memory_of(high * row + 4), *to = memory;
  auto fill = [&](int64_t from, int64_t to_byte) {
    for (int64_t n = from; n < to_byte; n += s.c) std::memcpy(to + n, edge, s.c);
  };
  for (int64_t n = begin; n < begin + high; ++n, to += row) {
    if (n < 0 || n >= s.h) {
      fill(0, row);
      continue;
    }
    fill(0, before);
    std::memcpy(to + before, image + n * size, inside);
    fill(before + inside, row);
  }
  std::memset(to, 0, 4);
  return {memory, row};
}

inline void convolve(xla::ffi::ThreadPool threads, const uint8_t* images, const uint8_t* edge, const int8_t* kernel,
                     const Shape& s, const Tail& tail, uint8_t* bytes, float* floats) {
  int64_t most = std::min(s.y, std::max<int64_t>(1, 131072 / (s.rows(1) * s.stride_h * s.row())));
  most = std::min(most, rows_at_once(threads, s.b, s.y));
  int64_t pieces = (s.y + most - 1) / most;
  parallel(threads, s.b * pieces, [&](int64_t piece) {
    int64_t n = piece / pieces, first = piece % pieces * most, count = std::min(most, s.y - first);
    Rows in = below(images + n * s.h * s.w * s.c, edge, s, first, count);
    int64_t done = (n * s.y + first) * s.x * s.o;
    for (int64_t v = 0; v < s.vectors(); v += 4) {
      int64_t left = s.vectors() - v, to = done + 16 * v;
      auto* b = bytes ? bytes + to : nullptr;
      auto* f = floats ? floats + to : nullptr;
      if (left == 1) rows<1>(in, count, kernel + 64 * v, s, tail, 16 * v, b, f);
      if (left == 2) rows<2>(in, count, kernel + 64 * v, s, tail, 16 * v, b, f);
      if (left == 3) rows<3>(in, count, kernel + 64 * v, s, tail, 16 * v, b, f);
      if (left >= 4) rows<4>(in, count, kernel + 64 * v, s, tail, 16 * v, b, f);
    }
  });
}

}  // namespace quantized
