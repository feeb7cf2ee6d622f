// Batch norm of images [b pixels c] in training, with the activation after it: by the batch's own mean and variance of
// each channel, of the examples that count; and its gradients.
//
// Rows of pixels whose channels do not fill vectors are taken several at a time (`Shape::together`), so that they do.
// What is summed is summed by pieces of one size, whatever the number of threads, and pieces are added in double.

#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tails.h"
#include "threads.h"
#include "vectors.h"

namespace batch_norm {

constexpr int64_t PIECE = 1 << 15;  // values, about: 128 KB
constexpr int FOLLOWING = 4;        // rows whose sums are made in registers before they are added to others

struct Shape {
  int64_t b, pixels, c;
  // Pixels that lie side by side in vectors: together they have a multiple of LANES channels.
  int64_t together() const { return LANES / std::gcd(c, int64_t{LANES}); }
  int64_t width() const { return together() * c; }
  int64_t piece() const { return std::max<int64_t>(1, PIECE / width()) * together(); }  // pixels
  int64_t pieces() const { return (pixels + piece() - 1) / piece(); }                   // of an example
};

// A number for each channel, as often as pixels lie together.
class ByChannel {
 public:
  template <typename Value>
  ByChannel(const Shape& s, const Value& value) : values_(memory_.of(s.width())) {
    for (int64_t n = 0; n < s.width(); ++n) values_[n] = n < s.c ? static_cast<float>(value(n)) : values_[n - s.c];
  }
  const float* get() const { return values_; }

 private:
  Floats memory_;
  float* values_;
};

// Calls work(example, piece, first value, pixels) for all pieces of the examples that count, or of all if null.
template <typename Work>
void for_pieces(xla::ffi::ThreadPool threads, const Shape& s, const bool* counted, const Work& work) {
  int64_t pieces = s.pieces();
  parallel(threads, s.b * pieces, [&](int64_t n) {
    int64_t example = n / pieces, first = n % pieces * s.piece();
    if (!counted || counted[example])
      work(example, n, (example * s.pixels + first) * s.c, std::min(s.piece(), s.pixels - first));
  });
}

// Calls whole(first value in the row) for every vector of a row, then rest(value) for what fills none.
template <typename Whole>
void for_row(int64_t values, const Whole& whole) {
  for (int64_t n = 0; n < values; n += LANES) whole(n, std::min<int64_t>(LANES, values - n));
}

// Adds two sums of each channel over a piece: term(first value, its place in the row, how many) gives what is added.
template <typename Term>
void add_piece(const Shape& s, int64_t pixels, const Term& term, float* first, float* second) {
  static thread_local Floats kept;
  int64_t width = s.width(), rows = pixels / s.together(), whole = rows * width, all = pixels * s.c;
  float* sums = kept.of(2 * width);
  std::fill_n(sums, 2 * width, 0.f);
  for (int64_t row = 0; row < rows;) {
    bool is_many = row + FOLLOWING <= rows;
    for (int64_t n = 0; n < width; n += LANES) {
      Vector a = {}, b = {};
      if (is_many) {
#pragma GCC unroll 8
        for (int k = 0; k < FOLLOWING; ++k) term((row + k) * width + n, n, int64_t{LANES}, a, b);
      } else {
        term(row * width + n, n, int64_t{LANES}, a, b);
      }
      store(sums + n, load(sums + n) + a);
      store(sums + width + n, load(sums + width + n) + b);
    }
    row += is_many ? FOLLOWING : 1;
  }
  for (int64_t n = whole; n < all; n += LANES) {
    Vector a = {}, b = {};
    int64_t place = n - whole;
    term(n, place, std::min<int64_t>(LANES, all - n), a, b);
    store(sums + place, load(sums + place) + a);
    store(sums + width + place, load(sums + width + place) + b);
  }
  for (int64_t c = 0; c < s.c; ++c) {
    double a = 0, b = 0;
    for (int64_t n = c; n < width; n += s.c) a += sums[n], b += sums[width + n];
    first[c] = a, second[c] = b;
  }
}

// The mean and variance [c] of the examples that count.
inline void measure(xla::ffi::ThreadPool threads, const float* images, const bool* counted, const Shape& s, float* mean,
                    float* variance) {
  int64_t pieces = s.b * s.pieces();
  // Of each piece the mean, and the sum of squared distances to it: squares are taken near the mean, where none cancels.
  // Means in float64: far from 0, what float32 rounds off of them counts beside the distances between pieces.
  std::vector<double> means(pieces * s.c);
  std::vector<float> squares(pieces * s.c);
  std::vector<int64_t> sizes(pieces, 0);
  for_pieces(threads, s, counted, [&](int64_t, int64_t piece, int64_t begin, int64_t pixels) {
    const float* from = images + begin;
    ByChannel near(s, [&](int64_t c) { return from[c]; });
    float* of_squares = squares.data() + piece * s.c;
    std::vector<float> sums(s.c);
    auto term = [&](int64_t n, int64_t place, int64_t count, Vector& sum, Vector& square) {
      Vector d = load_some(from + n, count) - load_some(near.get() + place, count);  // 0 beyond
      sum += d, square += d * d;
    };
    add_piece(s, pixels, term, sums.data(), of_squares);
    for (int64_t c = 0; c < s.c; ++c) {
      float away = sums[c] / pixels;
      of_squares[c] = std::max(0.f, of_squares[c] - sums[c] * away);
      means[piece * s.c + c] = double(near.get()[c]) + away;
    }
    sizes[piece] = pixels;
  });
  double all = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  std::vector<double> total(s.c, 0.);
  for (int64_t p = 0; p < pieces; ++p)
    for (int64_t c = 0; c < s.c && sizes[p]; ++c) total[c] += double(sizes[p]) * means[p * s.c + c];
  std::vector<double> spread(s.c, 0.);
  for (int64_t p = 0; p < pieces; ++p)
    for (int64_t c = 0; c < s.c && sizes[p]; ++c) {
      double away = means[p * s.c + c] - total[c] / all;
      spread[c] += squares[p * s.c + c] + sizes[p] * away * away;
    }
  for (int64_t c = 0; c < s.c; ++c) mean[c] = total[c] / all, variance[c] = spread[c] / all;
}

// What batch norm multiplies the distance to the mean by.
inline double inverse_deviation(float variance, float epsilon) { return 1 / std::sqrt(double(variance) + epsilon); }

// activation((image - mean) * scale / deviation + offset), for [b pixels c].
inline void normalize(xla::ffi::ThreadPool threads, const float* images, const float* mean, const float* variance,
                      const float* scale, const float* offset, float epsilon, Tail tail, const Shape& s, float* out) {
  ByChannel middle(s, [&](int64_t c) { return mean[c]; }), start(s, [&](int64_t c) { return offset[c]; });
  ByChannel factor(s, [&](int64_t c) { return scale[c] * inverse_deviation(variance[c], epsilon); });
  for_pieces(threads, s, nullptr, [&](int64_t, int64_t, int64_t begin, int64_t pixels) {
    for (int64_t first = 0, all = pixels * s.c; first < all; first += s.width()) {
      const float* from = images + begin + first;
      float* to = out + begin + first;
      for_row(std::min(s.width(), all - first), [&](int64_t n, int64_t count) {
        Vector v = (load_some(from + n, count) - load(middle.get() + n)) * load(factor.get() + n) + load(start.get() + n);
        store_some(to + n, finished(v, tail), count);
      });
    }
  });
}

// What of a gradient goes through the activation of `before`: as in JAX nothing where it bends.
inline Vector through(Vector gradient, Vector before, Tail tail) {
  if (tail == NOTHING) return gradient;
  Vector zero = {}, six = zero + 6.f;
  if (tail == RELU) return (before > 0) ? gradient : zero;
  return (before > 0 && before < six) ? gradient : zero;
}

// Gradients with respect to images, scale [c] and offset [c].
inline void gradients(xla::ffi::ThreadPool threads, const float* images, const float* gradient, const bool* counted,
                      const float* mean, const float* variance, const float* scale, const float* offset, float epsilon,
                      Tail tail, const Shape& s, float* to_images, float* to_scale, float* to_offset) {
  ByChannel middle(s, [&](int64_t c) { return mean[c]; }), start(s, [&](int64_t c) { return offset[c]; });
  ByChannel factor(s, [&](int64_t c) { return scale[c] * inverse_deviation(variance[c], epsilon); });
  auto sent = [&](int64_t n, int64_t place, int64_t count, Vector& away) {
    away = load_some(images + n, count) - load(middle.get() + place);
    return through(load_some(gradient + n, count), away * load(factor.get() + place) + load(start.get() + place), tail);
  };
  int64_t pieces = s.b * s.pieces();
  std::vector<float> of_offset(pieces * s.c), of_scale(pieces * s.c);
  for_pieces(threads, s, nullptr, [&](int64_t, int64_t piece, int64_t begin, int64_t pixels) {
    auto term = [&](int64_t n, int64_t place, int64_t count, Vector& first, Vector& second) {
      Vector away, g = sent(begin + n, place, count, away);
      first += g, second += g * away;
    };
    add_piece(s, pixels, term, of_offset.data() + piece * s.c, of_scale.data() + piece * s.c);
  });
  std::vector<double> offsets(s.c, 0.), scales(s.c, 0.);
  for (int64_t p = 0; p < pieces; ++p)
    for (int64_t c = 0; c < s.c; ++c) offsets[c] += of_offset[p * s.c + c], scales[c] += of_scale[p * s.c + c];
  double all = double(counted ? std::count(counted, counted + s.b, true) : s.b) * s.pixels;
  for (int64_t c = 0; c < s.c; ++c) {
    to_offset[c] = offsets[c];
    to_scale[c] = scales[c] * inverse_deviation(variance[c], epsilon);
  }
  ByChannel by_mean(s, [&](int64_t c) { return factor.get()[c] * offsets[c] / all; });
  ByChannel by_distance(s, [&](int64_t c) {
    double deviation = inverse_deviation(variance[c], epsilon);
    return factor.get()[c] * deviation * deviation * scales[c] / all;
  });
  for_pieces(threads, s, nullptr, [&](int64_t example, int64_t, int64_t begin, int64_t pixels) {
    bool has_shared = !counted || counted[example];
    for (int64_t first = 0, total = pixels * s.c; first < total; first += s.width()) {
      for_row(std::min(s.width(), total - first), [&](int64_t n, int64_t count) {
        Vector away, g = sent(begin + first + n, n, count, away) * load(factor.get() + n);
        if (has_shared) g -= load(by_mean.get() + n) + away * load(by_distance.get() + n);
        store_some(to_images + begin + first + n, g, count);
      });
    }
  });
}

}  // namespace batch_norm
