// Convolution of each channel by itself, and its gradients. Neighbouring channels lie in a vector. Where all windows of
// some pixels of a row lie within it, these are computed at once, and share what they read.

#pragma once

#include <algorithm>
#include <vector>

#include "tails.h"
#include "threads.h"
#include "vectors.h"

namespace depthwise {

constexpr int TOGETHER = 4;  // pixels of a row

// Images [b h w c] and maps [b y x c]; the kernel is [kh kw c], c a multiple of LANES.
struct Shape {
  int64_t b, h, w, c, kh, kw, y, x, stride_h, stride_w, top, left;
  int64_t image() const { return h * w * c; }
  int64_t map() const { return y * x * c; }
  // The first and the end of the rows of the kernel that lie on an image for a row of maps; and the same for columns.
  int64_t first_i(int64_t row) const { return std::max<int64_t>(0, top - row * stride_h); }
  int64_t end_i(int64_t row) const { return std::min(kh, h + top - row * stride_h); }
  int64_t first_j(int64_t column) const { return std::max<int64_t>(0, left - column * stride_w); }
  int64_t end_j(int64_t column) const { return std::min(kw, w + left - column * stride_w); }
  bool is_inside(int64_t column) const { return first_j(column) == 0 && end_j(column) == kw; }
};

// Calls inner(first column) for TOGETHER columns at once whose windows lie within a row, and edge(column) for others.
template <typename Inner, typename Edge>
void for_columns(const Shape& s, const Inner& inner, const Edge& edge) {
  for (int64_t column = 0; column < s.x;)
    if (column + TOGETHER <= s.x && s.is_inside(column) && s.is_inside(column + TOGETHER - 1))
      inner(column), column += TOGETHER;
    else edge(column++);
}

// Rows of maps that a thread makes at once.
inline int64_t rows_of_piece(xla::ffi::ThreadPool threads, const Shape& s) {
  int64_t pieces = 4 * num_threads(threads);
  return s.b >= pieces ? s.y : std::max<int64_t>(1, s.y * s.b / pieces);
}

// TOGETHER maps' pixels from `column` on; `K` columns of the kernel, `S` the stride.
template <int K, int S>
void convolve_inner(const float* image, const float* kernel, const float* bias, const Shape& s, int64_t row,
                    int64_t column, Tail tail, float* out) {
  int64_t begin = s.first_i(row), end = s.end_i(row), pitch = s.w * s.c;
  const float* from = image + (row * S - s.top) * pitch + (column * S - s.left) * s.c;
  for (int64_t c = 0; c < s.c; c += LANES) {
    Vector sum[TOGETHER];
    Vector start = bias ? load(bias + c) : Vector{};
#pragma GCC unroll 8
    for (int p = 0; p < TOGETHER; ++p) sum[p] = start;
    for (int64_t i = begin; i < end; ++i) {
      const float *values = from + i * pitch + c, *weights = kernel + i * K * s.c + c;
      Vector v[(TOGETHER - 1) * S + K];
#pragma GCC unroll 16
      for (int n = 0; n < (TOGETHER - 1) * S + K; ++n) v[n] = load(values + n * s.c);
#pragma GCC unroll 8
      for (int j = 0; j < K; ++j) {
        Vector weight = load(weights + j * s.c);
#pragma GCC unroll 8
        for (int p = 0; p < TOGETHER; ++p) sum[p] += v[p * S + j] * weight;
      }
    }
#pragma GCC unroll 8
    for (int p = 0; p < TOGETHER; ++p) store(out + p * s.c + c, finished(sum[p], tail));
  }
}

// One pixel of maps, wherever its window lies.
inline void convolve_edge(const float* image, const float* kernel, const float* bias, const Shape& s, int64_t row,
                          int64_t column, Tail tail, float* out) {
  int64_t begin = s.first_i(row), end = s.end_i(row), first = s.first_j(column), last = s.end_j(column);
  const float* from = image + ((row * s.stride_h - s.top) * s.w + column * s.stride_w - s.left) * s.c;
  for (int64_t c = 0; c < s.c; c += LANES) {
    Vector sum = bias ? load(bias + c) : Vector{};
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = first; j < last; ++j)
        sum += load(from + (i * s.w + j) * s.c + c) * load(kernel + (i * s.kw + j) * s.c + c);
    store(out + c, finished(sum, tail));
  }
}

template <int K, int S>
void convolve_row(const float* image, const float* kernel, const float* bias, const Shape& s, int64_t row, Tail tail,
                  float* out) {
  for_columns(
      s, [&](int64_t column) { convolve_inner<K, S>(image, kernel, bias, s, row, column, tail, out + column * s.c); },
      [&](int64_t column) { convolve_edge(image, kernel, bias, s, row, column, tail, out + column * s.c); });
}

inline void convolve_row_slowly(const float* image, const float* kernel, const float* bias, const Shape& s, int64_t row,
                                Tail tail, float* out) {
  for (int64_t column = 0; column < s.x; ++column)
    convolve_edge(image, kernel, bias, s, row, column, tail, out + column * s.c);
}

inline auto choose_row(const Shape& s) {
  bool is_one = s.stride_h == 1 && s.stride_w == 1, is_two = s.stride_h == 2 && s.stride_w == 2;
  if (s.kw == 3 && is_one) return convolve_row<3, 1>;
  if (s.kw == 3 && is_two) return convolve_row<3, 2>;
  if (s.kw == 5 && is_one) return convolve_row<5, 1>;
  if (s.kw == 5 && is_two) return convolve_row<5, 2>;
  return convolve_row_slowly;
}

// Maps [b y x c] of images, with bias, unless it is null, and the activation.
inline void convolve(xla::ffi::ThreadPool threads, const float* images, const float* kernel, const float* bias,
                     const Shape& s, Tail tail, float* out) {
  auto make_row = choose_row(s);
  int64_t rows = rows_of_piece(threads, s), pieces = (s.y + rows - 1) / rows;
  parallel(threads, s.b * pieces, [&](int64_t n) {
    int64_t image = n / pieces, first = n % pieces * rows, end = std::min(s.y, first + rows);
    for (int64_t row = first; row < end; ++row)
      make_row(images + image * s.image(), kernel, bias, s, row, tail, out + image * s.map() + row * s.x * s.c);
  });
}

// One pixel of the gradient with respect to images: what the maps send that it lies below.
inline void gather_pixel(const float* gradient, const float* kernel, const Shape& s, int64_t row, int64_t column,
                         float* out) {
  constexpr int64_t MOST = 64;
  const float *from[MOST], *by[MOST];
  int64_t count = 0;
  for (int64_t i = (row + s.top) % s.stride_h; i < s.kh; i += s.stride_h) {
    int64_t y = (row + s.top - i) / s.stride_h;
    if (row + s.top < i || y >= s.y) continue;
    for (int64_t j = (column + s.left) % s.stride_w; j < s.kw; j += s.stride_w) {
      int64_t x = (column + s.left - j) / s.stride_w;
      if (column + s.left < j || x >= s.x) continue;
      from[count] = gradient + (y * s.x + x) * s.c, by[count++] = kernel + (i * s.kw + j) * s.c;
    }
  }
  for (int64_t c = 0; c < s.c; c += LANES) {
    Vector sum = {};
    for (int64_t n = 0; n < count; ++n) sum += load(from[n] + c) * load(by[n] + c);
    store(out + c, sum);
  }
}

// The gradient of one image, from that of its maps; `kernel` is turned around where strides are 1.
inline void image_gradient(const float* gradient, const float* kernel, const Shape& s, float* out) {
  if (s.stride_h == 1 && s.stride_w == 1) {  // a convolution with the kernel turned around
    Shape back = {1, s.y, s.x, s.c, s.kh, s.kw, s.h, s.w, 1, 1, s.kh - 1 - s.top, s.kw - 1 - s.left};
    auto make_row = choose_row(back);
    for (int64_t row = 0; row < s.h; ++row)
      make_row(gradient, kernel, nullptr, back, row, NOTHING, out + row * s.w * s.c);
    return;
  }
  for (int64_t row = 0; row < s.h; ++row)
    for (int64_t column = 0; column < s.w; ++column)
      gather_pixel(gradient, kernel, s, row, column, out + (row * s.w + column) * s.c);
}

// Adds to sums [kh kw c] what TOGETHER pixels of maps give.
template <int K, int S>
void add_inner(const float* image, const float* gradient, const Shape& s, int64_t row, int64_t column, float* sums) {
  int64_t begin = s.first_i(row), end = s.end_i(row), pitch = s.w * s.c;
  const float* from = image + (row * S - s.top) * pitch + (column * S - s.left) * s.c;
  for (int64_t c = 0; c < s.c; c += LANES) {
    Vector g[TOGETHER];
#pragma GCC unroll 8
    for (int p = 0; p < TOGETHER; ++p) g[p] = load(gradient + p * s.c + c);
    for (int64_t i = begin; i < end; ++i) {
      const float* values = from + i * pitch + c;
      float* to = sums + i * K * s.c + c;
      Vector v[(TOGETHER - 1) * S + K];
#pragma GCC unroll 16
      for (int n = 0; n < (TOGETHER - 1) * S + K; ++n) v[n] = load(values + n * s.c);
#pragma GCC unroll 8
      for (int j = 0; j < K; ++j) {
        Vector sum = v[j] * g[0];
#pragma GCC unroll 8
        for (int p = 1; p < TOGETHER; ++p) sum += v[p * S + j] * g[p];
        store(to + j * s.c, load(to + j * s.c) + sum);
      }
    }
  }
}

inline void add_edge(const float* image, const float* gradient, const Shape& s, int64_t row, int64_t column,
                     float* sums) {
  int64_t begin = s.first_i(row), end = s.end_i(row), first = s.first_j(column), last = s.end_j(column);
  const float* from = image + ((row * s.stride_h - s.top) * s.w + column * s.stride_w - s.left) * s.c;
  for (int64_t i = begin; i < end; ++i)
    for (int64_t j = first; j < last; ++j) {
      const float* values = from + (i * s.w + j) * s.c;
      float* to = sums + (i * s.kw + j) * s.c;
      for (int64_t c = 0; c < s.c; c += LANES) store(to + c, load(to + c) + load(values + c) * load(gradient + c));
    }
}

template <int K, int S>
void add_row(const float* image, const float* gradient, const Shape& s, int64_t row, float* sums) {
  for_columns(
      s, [&](int64_t column) { add_inner<K, S>(image, gradient + column * s.c, s, row, column, sums); },
      [&](int64_t column) { add_edge(image, gradient + column * s.c, s, row, column, sums); });
}

inline void add_row_slowly(const float* image, const float* gradient, const Shape& s, int64_t row, float* sums) {
  for (int64_t column = 0; column < s.x; ++column) add_edge(image, gradient + column * s.c, s, row, column, sums);
}

inline auto choose_add(const Shape& s) {
  bool is_one = s.stride_h == 1 && s.stride_w == 1, is_two = s.stride_h == 2 && s.stride_w == 2;
  if (s.kw == 3 && is_one) return add_row<3, 1>;
  if (s.kw == 3 && is_two) return add_row<3, 2>;
  if (s.kw == 5 && is_one) return add_row<5, 1>;
  if (s.kw == 5 && is_two) return add_row<5, 2>;
  return add_row_slowly;
}

// The gradients with respect to images and kernel, both of an image while it is in a cache. Sums of an image are added to
// those of a share of images, and these to one another, so that long sums stay exact.
inline void gradients(xla::ffi::ThreadPool threads, const float* images, const float* kernel, const float* gradient,
                      const Shape& s, float* to_images, float* to_kernel) {
  int64_t size = s.kh * s.kw * s.c, shares = std::max<int64_t>(1, std::min(s.b, num_threads(threads)));
  std::vector<float> sums(shares * size, 0.f), turned(kernel, kernel + size);
  if (s.stride_h == 1 && s.stride_w == 1)
    for (int64_t n = 0, last = s.kh * s.kw - 1; n <= last; ++n)
      std::copy_n(kernel + (last - n) * s.c, s.c, turned.data() + n * s.c);
  auto add = choose_add(s);
  parallel(threads, shares, [&](int64_t share) {
    std::vector<float> own(size);
    float* total = sums.data() + share * size;
    for (int64_t image = s.b * share / shares; image < s.b * (share + 1) / shares; ++image) {
      const float *from = images + image * s.image(), *sent = gradient + image * s.map();
      image_gradient(sent, turned.data(), s, to_images + image * s.image());
      std::fill(own.begin(), own.end(), 0.f);
      for (int64_t row = 0; row < s.y; ++row) add(from, sent + row * s.x * s.c, s, row, own.data());
      for (int64_t n = 0; n < size; ++n) total[n] += own[n];
    }
  });
  std::copy_n(sums.data(), size, to_kernel);
  for (int64_t share = 1; share < shares; ++share)
    for (int64_t n = 0; n < size; ++n) to_kernel[n] += sums[share * size + n];
}

}  // namespace depthwise
