// What direct.h declares. A file of its own, so that it is compiled beside the others of the library.

#include "direct.h"

#include "pools.h"
#include "shapes.h"
#include "vectors.h"

namespace direct {

#if defined(__AVX512F__)
constexpr int RUN = 8;  // steps at once for one vector of filters
#else
constexpr int RUN = 2;
#endif

// Adds to sums of `F` vectors of filters at `P` pixels of an image; from[p] is where pixel p's window begins. The sums
// are in registers only if this is a part of its caller.
template <int P, int F, int U>
__attribute__((always_inline)) inline void add_block(const float* const* from, const float* kernel, const Shape& s,
                                                     Vector (&sum)[P][F]) {
  int64_t length = run(s), count = runs(s);
  for (int64_t i = 0; i < s.kh; ++i) {
    for (int64_t j = 0; j < count; ++j) {
      int64_t offset = i * s.dilation_h * s.row() + j * s.dilation_w * s.c, r = 0;
      for (; r + U <= length; r += U, kernel += U * F * LANES) {
        Vector k[U][F];
        for (int u = 0; u < U; ++u)
          for (int f = 0; f < F; ++f) k[u][f] = load(kernel + (u * F + f) * LANES);
#pragma GCC unroll 32
        for (int p = 0; p < P; ++p) {
          const float* values = from[p] + offset + r;
#pragma GCC unroll 8
          for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
            for (int f = 0; f < F; ++f) sum[p][f] += values[u] * k[u][f];
        }
      }
      for (; r < length; ++r, kernel += F * LANES) {
#pragma GCC unroll 32
        for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
          for (int f = 0; f < F; ++f) sum[p][f] += from[p][offset + r] * load(kernel + f * LANES);
      }
    }
  }
}

// All pixels of an image for `F` vectors of filters, whose bias is added, and then relu, if wanted.
template <int F, int U, int P>
void convolve_block(const float* image, const float* kernel, const float* bias, const Shape& s, bool is_relu,
                    float* out) {
  int64_t count = s.y * s.x;
  for (int64_t first = 0; first < count; first += P) {
    const float* from[P];
    int64_t row = first / s.x, column = first % s.x;
    for (int p = 0; p < P; ++p) {
      from[p] = image + row * s.stride_h * s.row() + column * s.stride_w * s.c;
      if (first + p + 1 < count && ++column == s.x) column = 0, ++row;
    }
    Vector sum[P][F];
    for (auto& of_pixel : sum)
      for (int f = 0; f < F; ++f) of_pixel[f] = load(bias + f * LANES);
    add_block<P, F, U>(from, kernel, s, sum);
    int valid = std::min<int64_t>(P, count - first);
    for (int p = 0; p < P; ++p)
      if (p < valid)
        for (int f = 0; f < F; ++f)
          store(out + (first + p) * s.o + f * LANES, is_relu ? positive(sum[p][f]) : sum[p][f]);
  }
}

// The same for images of `C` channels, `P` pixels of a row at once: their places are known when this is compiled. The
// last pixels of a row are computed with pixels before them, once more.
template <int C, int P, int F>
void convolve_thin_block(const float* image, const float* kernel, const float* bias, const Shape& s, bool is_relu,
                         float* out) {
  for (int64_t row = 0; row < s.y; ++row, image += s.stride_h * s.row(), out += s.x * s.o)
    for (int64_t first = 0; first < s.x; first += P) {
      int64_t column = std::min(first, s.x - P);
      Vector sum[P][F];
      for (auto& of_pixel : sum)
        for (int f = 0; f < F; ++f) of_pixel[f] = load(bias + f * LANES);
      const float* by = kernel;
      for (int64_t i = 0; i < s.kh; ++i) {
        const float* values = image + i * s.dilation_h * s.row() + column * C;
        for (int64_t r = 0; r < s.kw * C; ++r, ++values, by += F * LANES) {
          Vector k[F];
          for (int f = 0; f < F; ++f) k[f] = load(by + f * LANES);
#pragma GCC unroll 32
          for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
            for (int f = 0; f < F; ++f) sum[p][f] += values[p * C] * k[f];
        }
      }
#pragma GCC unroll 32
      for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
        for (int f = 0; f < F; ++f)
          store(out + (column + p) * s.o + f * LANES, is_relu ? positive(sum[p][f]) : sum[p][f]);
    }
}

// As many pixels at once as fit a row best.
template <int C, int F>
void convolve_thin(const float* image, const float* kernel, const float* bias, const Shape& s, bool is_relu,
                   float* out) {
  constexpr int P = REGISTERS / F, Q = P * 5 / 6, R = P * 3 / 4, S = P * 2 / 3, T = P * 5 / 8;
  auto computed = [&s](int64_t pixels) { return (s.x + pixels - 1) / pixels * pixels; };
  int64_t least = std::min({computed(Q), computed(R), computed(S), computed(T)});
  if (s.x >= P && computed(P) <= least) convolve_thin_block<C, P, F>(image, kernel, bias, s, is_relu, out);
  else if (s.x >= Q && computed(Q) == least) convolve_thin_block<C, Q, F>(image, kernel, bias, s, is_relu, out);
  else if (s.x >= R && computed(R) == least) convolve_thin_block<C, R, F>(image, kernel, bias, s, is_relu, out);
  else if (computed(S) == least) convolve_thin_block<C, S, F>(image, kernel, bias, s, is_relu, out);
  else convolve_thin_block<C, T, F>(image, kernel, bias, s, is_relu, out);
}

template <int F>
void convolve_image(const float* image, const float* kernel, const float* bias, const Shape& s, bool is_relu,
                    float* out) {
  constexpr int U = F == 1 ? RUN : F == 2 ? 2 : 1, P = F == 1 ? REGISTERS - 4 : REGISTERS / F;
  auto work = !is_thin(s) ? convolve_block<F, U, P> : s.c == 1 ? convolve_thin<1, F> : convolve_thin<3, F>;
  work(image, kernel, bias, s, is_relu, out);
}

void convolve(Images images, const float* packed, const float* bias, const Shape& s, bool is_relu, float* out) {
  for (int64_t n = 0; n < s.b; ++n, out += s.map())
    in_blocks(s.o, [&](int64_t first, auto f) {
      convolve_image<f.value>(images.from(n), packed + first * taps(s), bias + first, s, is_relu, out + first);
    });
}

// Thin images and a pool of 2x2 behind them: the sums of `W` windows of a row, which never leave the registers.
template <int C, int W, int F, bool HAS_WINNERS>
void pool_thin_block(const float* image, const float* kernel, const float* bias, const Shape& s, bool is_relu,
                     float* out, uint8_t* winners) {
  Vector sum[2][2 * W][F];
  for (auto& row : sum)
    for (auto& of_pixel : row)
      for (int f = 0; f < F; ++f) of_pixel[f] = load(bias + f * LANES);
  for (int64_t i = 0; i < s.kh; ++i, image += s.dilation_h * s.row()) {
    const float *upper = image, *lower = image + s.stride_h * s.row();
    for (int64_t r = 0; r < s.kw * C; ++r, ++upper, ++lower, kernel += F * LANES) {
      Vector k[F];
      for (int f = 0; f < F; ++f) k[f] = load(kernel + f * LANES);
#pragma GCC unroll 32
      for (int p = 0; p < 2 * W; ++p)
#pragma GCC unroll 4
        for (int f = 0; f < F; ++f) sum[0][p][f] += upper[p * C] * k[f], sum[1][p][f] += lower[p * C] * k[f];
    }
  }
#pragma GCC unroll 8
  for (int w = 0; w < W; ++w)
#pragma GCC unroll 4
    for (int f = 0; f < F; ++f) {
      Largest<HAS_WINNERS> largest{sum[0][2 * w][f]};
      largest.take(sum[0][2 * w + 1][f], 1), largest.take(sum[1][2 * w][f], 2), largest.take(sum[1][2 * w + 1][f], 3);
      largest.put(is_relu, w * s.o + f * LANES, out, winners);
    }
}

// All windows, in blocks of `W` and of one less, so that none is computed twice; of a row whose number is no sum of
// these, as of 13 by 6 and 5, what is left one by one.
template <int C, int F, bool HAS_WINNERS>
void pool_thin(const float* image, const float* kernel, const float* bias, const Shape& s, bool is_relu, float* out,
               uint8_t* winners) {
  constexpr int W = std::max(1, REGISTERS / 4 / F), V = std::max(1, W - 1);
  int64_t windows = s.x / 2, of_most = windows - (windows + W - 1) / W * V;
  bool is_sum = of_most >= 0;
  if (!is_sum) of_most = windows / W;
  auto others = is_sum ? pool_thin_block<C, V, F, HAS_WINNERS> : pool_thin_block<C, 1, F, HAS_WINNERS>;
  for (int64_t y = 0; y < s.y; y += 2)
    for (int64_t n = 0, x = 0; x < windows; x += n++ < of_most ? W : is_sum ? V : 1) {
      auto work = n < of_most ? pool_thin_block<C, W, F, HAS_WINNERS> : others;
      int64_t at = (y / 2 * windows + x) * s.o;
      work(image + y * s.stride_h * s.row() + 2 * x * C, kernel, bias, s, is_relu, out + at, after(winners, at));
    }
}

void convolve_and_pool(Images images, const float* packed, const float* bias, const Shape& s, bool is_relu,
                       float* out, uint8_t* winners) {
  for (int64_t n = 0; n < s.b; ++n, out += s.map() / 4, winners = after(winners, s.map() / 4))
    in_blocks(s.o, [&](int64_t first, auto f) {
      constexpr int F = f.value;
      auto work = s.c == 1 ? (winners ? pool_thin<1, F, true> : pool_thin<1, F, false>)
                           : (winners ? pool_thin<3, F, true> : pool_thin<3, F, false>);
      work(images.from(n), packed + first * taps(s), bias + first, s, is_relu, out + first, after(winners, first));
    });
}

// Adds to sums [taps of a run][o] for `T` taps and `F` vectors of filters what rows of an image and gradient give.
template <int T, int F>
void add_gradient_block(const float* image, Gradient gradient, const Shape& s, int64_t rows, float* sums) {
  Vector sum[T][F];
  for (int t = 0; t < T; ++t)
    for (int f = 0; f < F; ++f) sum[t][f] = load(sums + t * s.o + f * LANES);
  int64_t step = s.stride_w * s.c;
  for (int64_t n = 0; n < rows; ++n) {
    const float *values = image + n * s.stride_h * s.row(), *g_of_row = gradient.values + n * gradient.pitch;
    for (int64_t m = 0; m < s.x; ++m, values += step, g_of_row += s.o) {
      Vector g[F];
      for (int f = 0; f < F; ++f) g[f] = load(g_of_row + f * LANES);
#pragma GCC unroll 32
      for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
        for (int f = 0; f < F; ++f) sum[t][f] += values[t] * g[f];
    }
  }
  for (int t = 0; t < T; ++t)
    for (int f = 0; f < F; ++f) store(sums + t * s.o + f * LANES, sum[t][f]);
}

template <int T, int F>
void add_gradient_run(const float* image, Gradient gradient, const Shape& s, int64_t rows, int64_t left, float* sums) {
  if constexpr (T > 0) {
    for (; left >= T; left -= T, image += T, sums += T * s.o)
      add_gradient_block<T, F>(image, gradient, s, rows, sums);
    if (left) add_gradient_run<(T > 12 ? T - 4 : T - 1), F>(image, gradient, s, rows, left, sums);
  }
}

void add_gradient(Images images, Gradient gradient, const Shape& s, float* sums) {
  constexpr int64_t CACHED = 6144;  // floats of image and gradient that stay in the first cache
  int64_t band = std::max<int64_t>(1, CACHED / (s.x * s.o + s.stride_h * s.row())), bands = (s.y + band - 1) / band;
  for (int64_t n = 0; n < s.b * bands; ++n) {
    int64_t first = n % bands * band, rows = std::min(band, s.y - first);
    const float* top = images.from(n / bands) + first * s.stride_h * s.row();
    Gradient part = gradient.from(n / bands, first);
    for (int64_t i = 0; i < s.kh; ++i)
      for (int64_t j = 0; j < runs(s); ++j) {
        const float* from = top + i * s.dilation_h * s.row() + j * s.dilation_w * s.c;
        float* to = sums + (i * runs(s) + j) * run(s) * s.o;
        int64_t o = 0;
        for (; o + 2 * LANES <= s.o; o += 2 * LANES)
          add_gradient_run<REGISTERS / 2, 2>(from, part.at(o), s, rows, run(s), to + o);
        if (o < s.o) add_gradient_run<REGISTERS, 1>(from, part.at(o), s, rows, run(s), to + o);
      }
  }
}

}  // namespace direct
