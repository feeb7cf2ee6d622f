// Convolution by kernels of 1x1 as a product of matrices, [pixel, channel] by [channel, filter]. A block of sums stays
// in registers over all channels; bias, what is added and the activation follow before it is stored.

#pragma once

#include <algorithm>
#include <vector>

#include "tails.h"
#include "threads.h"
#include "vectors.h"

namespace pointwise {

constexpr int64_t WIDEST = 4 * LANES;  // filters of a block

inline int64_t padded(int64_t filters) { return (filters + 15) / 16 * 16; }

// A product: `rows` pixels with `c` channels each, and `o` filters. Pixels are every `stride_w`-th of every `stride_h`-th
// row of images [h w c], and make maps [y x o].
struct Product {
  int64_t b, h, w, c, o, y, x, stride_h, stride_w;
  int64_t rows() const { return b * y * x; }
  bool is_dense() const { return stride_h == 1 && stride_w == 1; }
  const float* pixel(const float* images, int64_t row) const {
    if (is_dense()) return images + row * c;
    int64_t image = row / (y * x), place = row % (y * x);
    return images + ((image * h + place / x * stride_h) * w + place % x * stride_w) * c;
  }
};

// A kernel [c][o] as multiply reads it: [block of filters][c][filter of the block], zeros for filters there are none of.
inline int64_t packed_size(int64_t c, int64_t o) { return c * padded(o); }

inline void pack(xla::ffi::ThreadPool threads, const float* kernel, int64_t c, int64_t o, float* to) {
  int64_t all = padded(o);
  parallel(threads, (all + WIDEST - 1) / WIDEST, [&](int64_t n) {
    int64_t first = n * WIDEST, wide = std::min(WIDEST, all - first), real = std::min(wide, o - first);
    float* at = to + first * c;
    for (int64_t k = 0; k < c; ++k, at += wide) {
      std::memcpy(at, kernel + k * o + first, real * sizeof(float));
      std::fill(at + real, at + wide, 0.f);
    }
  });
}

struct Ends {
  const float *bias, *added;  // [o], or null; [rows o], or null
  Tail tail;
};

template <int P, int F>
void multiply_block(const float* const* from, const float* packed, int64_t c, int64_t o, int64_t filter, int64_t valid,
                    const Ends& ends, int64_t row, float* out) {
  // What is added, and where sums go, lie a map's depth apart; they come near while products are summed.
  for (int64_t p = 0; p < std::min<int64_t>(P, valid); ++p)
    for (int64_t at = filter, end = std::min(o, filter + F * LANES); at < end; at += LINE) {
      int64_t place = (row + p) * o + at;
      __builtin_prefetch(out + place, 1);
      if (ends.added) __builtin_prefetch(ends.added + place, 0);
    }
  Vector sum[P][F] = {};
  for (int64_t k = 0; k < c; ++k, packed += F * LANES) {
    Vector w[F];
#pragma GCC unroll 4
    for (int f = 0; f < F; ++f) w[f] = load(packed + f * LANES);
#pragma GCC unroll 32
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
      for (int f = 0; f < F; ++f) sum[p][f] += from[p][k] * w[f];
  }
#pragma GCC unroll 4
  for (int f = 0; f < F; ++f) {
    int64_t at = filter + f * LANES, count = o - at;
    if (count <= 0) break;
    Vector bias = ends.bias ? load_some(ends.bias + at, count) : Vector{};
#pragma GCC unroll 32
    for (int p = 0; p < P; ++p) {
      if (p >= valid) break;
      int64_t place = (row + p) * o + at;
      Vector value = sum[p][f] + bias;
      if (ends.added) value += load_some(ends.added + place, count);
      store_some(out + place, finished(value, ends.tail), count);
    }
  }
}

template <int P, int F>
void multiply_rows(const float* images, const float* packed, const Product& s, int64_t first, int64_t end,
                   int64_t filter, const Ends& ends, float* out) {
  // The kernel's next block lies behind this one; it comes from memory while this one is multiplied, a part each time.
  int64_t parts = (end - first + P - 1) / P, lines = (s.c * F * LANES / LINE + parts - 1) / parts;
  const float* next = packed + s.c * F * LANES;
  for (int64_t row = first; row < end; row += P, next += lines * LINE) {
    const float* from[P];
    for (int64_t p = 0; p < P; ++p) from[p] = s.pixel(images, std::min(row + p, end - 1));
    fetch(next, lines);
    multiply_block<P, F>(from, packed, s.c, s.o, filter, end - row, ends, row, out);
  }
}

// Maps [rows o] of images with a packed kernel.
inline void multiply(xla::ffi::ThreadPool threads, const float* images, const float* packed, const Product& s,
                     const Ends& ends, float* out) {
  constexpr int64_t CACHED = 65536;  // floats in the second cache
  constexpr int MOST = REGISTERS / 4, MORE = MOST == 6 ? 7 : MOST;  // pixels with four vectors of filters
  int64_t rows = s.rows(), all = padded(s.o), blocks = (all + WIDEST - 1) / WIDEST;
  // Maps of 7x7 are seven blocks of seven pixels, and would be eight of six and a pixel.
  bool has_more = MORE > MOST && rows < 64 && (rows + MORE - 1) / MORE * MORE < (rows + MOST - 1) / MOST * MOST;
  int64_t step = has_more ? 28 : 24;  // pixels, a multiple of those of most blocks
  int64_t wanted = 4 * num_threads(threads), most = std::max<int64_t>(1, CACHED / (s.c + s.o) / step) * step;
  int64_t band = std::min(most, std::max<int64_t>(1, (rows + wanted - 1) / wanted + step - 1) / step * step);
  band = std::max(band, step);
  int64_t bands = (rows + band - 1) / band, chunks = std::clamp<int64_t>((wanted + bands - 1) / bands, 1, blocks);
  parallel(threads, bands * chunks, [&](int64_t n) {
    int64_t first = n / chunks * band, end = std::min(rows, first + band), chunk = n % chunks;
    for (int64_t block = blocks * chunk / chunks; block < blocks * (chunk + 1) / chunks; ++block) {
      int64_t filter = block * WIDEST, vectors = std::min(WIDEST, all - filter) / LANES;
      const float* some = packed + filter * s.c;
      auto by = [&](auto work) { work(images, some, s, first, end, filter, ends, out); };
      if (vectors == 1) by(multiply_rows<12, 1>);
      if (vectors == 2) by(multiply_rows<REGISTERS / 2, 2>);
      if (vectors == 3) by(multiply_rows<REGISTERS / 3, 3>);
      if (vectors == 4) by(has_more ? multiply_rows<MORE, 4> : multiply_rows<MOST, 4>);
    }
  });
}

// Adds to sums [T][o] what a band of pixels, `pitch` floats apart, and their packed gradient give, for `T` channels and `F`
// vectors of filters, the last of which has `last`.
template <int T, int F>
void add_block(const float* values, int64_t pitch, const float* packed, int64_t rows, int64_t o, int64_t last,
               float* sums) {
  // Sums lie a kernel's depth apart; they come near while products are summed.
  for (int t = 0; t < T; ++t)
    for (int64_t at = 0; at < F * LANES; at += LINE) __builtin_prefetch(sums + t * o + at, 1);
  Vector sum[T][F] = {};
  for (int64_t n = 0; n < rows; ++n, values += pitch, packed += F * LANES) {
    Vector g[F];
#pragma GCC unroll 4
    for (int f = 0; f < F; ++f) g[f] = load(packed + f * LANES);
#pragma GCC unroll 32
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
      for (int f = 0; f < F; ++f) sum[t][f] += values[t] * g[f];
  }
#pragma GCC unroll 32
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int f = 0; f < F; ++f) {
      float* to = sums + t * o + f * LANES;
      if (f + 1 < F) store(to, load(to) + sum[t][f]);
      else store_some(to, load_some(to, last) + sum[t][f], last);
    }
}

// The same for `c` channels, in blocks of `T` and of fewer.
template <int T, int F>
void add_channels(const float* values, int64_t pitch, const float* packed, int64_t rows, int64_t c, int64_t o,
                  int64_t last, float* sums) {
  if constexpr (T > 0) {
    for (; c >= T; c -= T, values += T, sums += T * o) add_block<T, F>(values, pitch, packed, rows, o, last, sums);
    if (c) add_channels<(T > 8 ? T - 4 : T - 1), F>(values, pitch, packed, rows, c, o, last, sums);
  }
}

// The gradient with respect to a kernel: [c o]. Threads share channels, filters and, where a kernel is small, parts of the
// pixels; parts, and bands of each, are summed apart, so that long sums stay exact and do not depend on the number of
// threads. What a share needs of a band is copied, so that it lies side by side in the caches: rows of images and of
// gradients that are a multiple of a page apart would be in each other's place.
inline void kernel_gradient(xla::ffi::ThreadPool threads, const float* images, const float* gradient, const Product& s,
                            float* out) {
  constexpr int64_t BAND = 96, MOST = 252, SMALL = 1 << 15, PARTS = 16;  // pixels, channels, floats of a small kernel, parts
  int64_t rows = s.rows(), size = s.c * s.o, blocks = (s.o + WIDEST - 1) / WIDEST;
  int64_t parts = size <= SMALL ? std::clamp<int64_t>(rows / (4 * BAND), 1, PARTS) : 1;
  int64_t shares = (s.c + MOST - 1) / MOST, share = ((s.c + shares - 1) / shares + 11) / 12 * 12;
  int64_t wanted = (4 * num_threads(threads) + parts * shares - 1) / (parts * shares), chunks = std::min(wanted, blocks);
  int64_t pitch = (share + LINE - 1) / LINE * LINE | LINE;
  std::vector<float> of_parts(parts > 1 ? parts * size : 0);
  float* sums = parts > 1 ? of_parts.data() : out;
  if (parts == 1) std::fill_n(out, size, 0.f);
  parallel(threads, parts * shares * chunks, [&](int64_t n) {
    static thread_local Floats of_pixels, of_gradient;
    float *values = of_pixels.of(BAND * pitch), *packed = of_gradient.of(BAND * WIDEST);
    int64_t part = n % parts, channel = n / parts % shares * share, chunk = n / parts / shares;
    int64_t c = std::min(share, s.c - channel);
    float* own = sums + part * size + channel * s.o;
    for (int64_t first = rows * part / parts, last = rows * (part + 1) / parts; first < last; first += BAND) {
      int64_t band = std::min(BAND, last - first);
      for (int64_t p = 0; p < band; ++p)
        std::memcpy(values + p * pitch, s.pixel(images, first + p) + channel, c * sizeof(float));
      for (int64_t block = blocks * chunk / chunks; block < blocks * (chunk + 1) / chunks; ++block) {
        int64_t filter = block * WIDEST, count = std::min(WIDEST, s.o - filter), vectors = (count + LANES - 1) / LANES;
        const float* sent = gradient + first * s.o + filter;
        float* to = packed;
        for (int64_t p = 0; p < band; ++p, sent += s.o)
          for (int64_t f = 0; f < count; f += LANES, to += LANES) store(to, load_some(sent + f, count - f));
        int64_t rest = count - (vectors - 1) * LANES;
        auto by = [&](auto work) { work(values, pitch, packed, band, c, s.o, rest, own + filter); };
        if (vectors == 1) by(add_channels<12, 1>);
        if (vectors == 2) by(add_channels<REGISTERS / 2, 2>);
        if (vectors == 3) by(add_channels<REGISTERS / 3, 3>);
        if (vectors == 4) by(add_channels<REGISTERS / 4, 4>);
      }
    }
  });
  if (parts == 1) return;
  std::copy_n(sums, size, out);
  for (int64_t part = 1; part < parts; ++part)
    for (int64_t n = 0; n < size; ++n) out[n] += sums[part * size + n];
}

}  // namespace pointwise
