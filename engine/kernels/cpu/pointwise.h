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

// Adds to sums [c][o] what some pixels and their gradient give, for `T` channels and `F` vectors of filters.
template <int T, int F>
void add_block(const float* const* from, const float* gradient, int64_t rows, int64_t channel, int64_t o, float* sums) {
  Vector sum[T][F] = {};
  for (int64_t n = 0; n < rows; ++n, gradient += o) {
    const float* values = from[n] + channel;
    Vector g[F];
#pragma GCC unroll 4
    for (int f = 0; f < F; ++f) g[f] = load(gradient + f * LANES);
#pragma GCC unroll 32
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
      for (int f = 0; f < F; ++f) sum[t][f] += values[t] * g[f];
  }
  for (int t = 0; t < T; ++t)
    for (int f = 0; f < F; ++f) store(sums + t * o + f * LANES, load(sums + t * o + f * LANES) + sum[t][f]);
}

// The same for channels from `channel` up to `end`.
template <int T, int F>
void add_channels(const float* const* from, const float* gradient, int64_t rows, int64_t channel, int64_t end,
                  int64_t o, float* sums) {
  if constexpr (T > 0) {
    for (; channel + T <= end; channel += T) add_block<T, F>(from, gradient, rows, channel, o, sums + channel * o);
    if (channel < end) add_channels<(T > 8 ? T - 4 : T - 1), F>(from, gradient, rows, channel, end, o, sums);
  }
}

// The same for `T` channels and the last filters, which do not fill a vector: `count` of them.
template <int T>
void add_rest(const float* const* from, const float* gradient, int64_t rows, int64_t channel, int64_t end, int64_t o,
              int64_t count, float* sums) {
  if constexpr (T > 0) {
    float counted[LANES] = {};
    std::fill_n(counted, count, 1.f);
    Vector is_one = load(counted), zero = {};
    for (; channel + T <= end; channel += T) {
      Vector sum[T] = {};
      for (int64_t n = 0; n < rows; ++n) {
        const float* values = from[n] + channel;
        // A whole vector may be read where enough rows follow: those are values of the next.
        Vector g = (rows - n - 1) * o >= LANES ? is_one > 0 ? load(gradient + n * o) : zero : load_some(gradient + n * o, count);
#pragma GCC unroll 32
        for (int t = 0; t < T; ++t) sum[t] += values[t] * g;
      }
      for (int t = 0; t < T; ++t) {
        float* to = sums + (channel + t) * o;
        store_some(to, load_some(to, count) + sum[t], count);
      }
    }
    if (channel < end) add_rest<(T > 8 ? T - 4 : T - 1)>(from, gradient, rows, channel, end, o, count, sums);
  }
}

// Adds to sums [c][o] what a band of pixels and their gradient give, for channels from `channel` up to `end`.
inline void add_band(const float* const* from, const float* gradient, int64_t rows, int64_t channel, int64_t end,
                     int64_t o, float* sums) {
  int64_t done = 0;
  for (; done + WIDEST <= o; done += WIDEST)
    add_channels<REGISTERS / 4, 4>(from, gradient + done, rows, channel, end, o, sums + done);
  for (; done + 2 * LANES <= o; done += 2 * LANES)
    add_channels<REGISTERS / 2, 2>(from, gradient + done, rows, channel, end, o, sums + done);
  for (; done + LANES <= o; done += LANES)
    add_channels<12, 1>(from, gradient + done, rows, channel, end, o, sums + done);
  if (done < o) add_rest<12>(from, gradient + done, rows, channel, end, o, o - done, sums + done);
}

// The gradient with respect to a kernel: [c o]. Threads share channels and, where a kernel is small, parts of the pixels;
// parts, and bands of each, are summed apart, so that long sums stay exact and do not depend on the number of threads.
inline void kernel_gradient(xla::ffi::ThreadPool threads, const float* images, const float* gradient, const Product& s,
                            float* out) {
  constexpr int64_t CACHED = 65536, FEWEST = 192, MOST = 512;  // floats; pixels of a band
  constexpr int64_t LEAST = 24, SMALL = 1 << 15, PARTS = 16;   // channels of a share; floats of a small kernel; parts
  int64_t rows = s.rows(), size = s.c * s.o, band = std::clamp<int64_t>(CACHED / (s.c + s.o), FEWEST, MOST);
  int64_t parts = size <= SMALL ? std::clamp<int64_t>(rows / (4 * band), 1, PARTS) : 1;
  int64_t wanted = (4 * num_threads(threads) + parts - 1) / parts;
  int64_t share = std::max(LEAST, ((s.c + wanted - 1) / wanted + 11) / 12 * 12), shares = (s.c + share - 1) / share;
  std::vector<float> of_parts(parts > 1 ? parts * size : 0);
  float* sums = parts > 1 ? of_parts.data() : out;
  if (parts == 1) std::fill_n(out, size, 0.f);
  parallel(threads, shares * parts, [&](int64_t n) {
    int64_t part = n % parts, channel = n / parts * share, end = std::min(s.c, channel + share);
    float* own = sums + part * size;
    const float* from[MOST];
    for (int64_t first = rows * part / parts, last = rows * (part + 1) / parts; first < last; first += band) {
      int64_t count = std::min(band, last - first);
      for (int64_t p = 0; p < count; ++p) from[p] = s.pixel(images, first + p);
      add_band(from, gradient + first * s.o, count, channel, end, s.o, own);
    }
  });
  if (parts == 1) return;
  std::copy_n(sums, size, out);
  for (int64_t part = 1; part < parts; ++part)
    for (int64_t n = 0; n < size; ++n) out[n] += sums[part * size + n];
}

}  // namespace pointwise
