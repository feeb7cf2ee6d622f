// Convolution as it is defined: a block of sums stays in registers while everything that adds to it passes by.

#pragma once

#include "pools.h"
#include "shapes.h"
#include "vectors.h"

namespace direct {

inline int64_t taps(const Shape& s) { return s.kh * s.kw * s.c; }
// Values of a row of the window that lie behind one another, and how many such runs a row has.
inline int64_t run(const Shape& s) { return s.dilation_w == 1 ? s.kw * s.c : s.c; }
inline int64_t runs(const Shape& s) { return s.dilation_w == 1 ? 1 : s.kw; }

// A kernel as convolve reads it: [block of filters][tap][filter of the block].
inline void pack(const float* kernel, const Shape& s, float* to) {
  in_blocks(s.o, [&](int64_t first, int f) {
    for (int64_t t = 0; t < taps(s); ++t)
      std::memcpy(to + first * taps(s) + t * f * LANES, kernel + t * s.o + first, f * LANES * sizeof(float));
  });
}

// What padded images give with a packed kernel: [b y x o].
void convolve(Images images, const float* packed, const float* bias, const Shape& s, bool is_relu, float* out);

inline bool is_thin(const Shape& s) {
  return (s.c == 1 || s.c == 3) && s.stride_w == 1 && s.dilation_w == 1 && s.x >= REGISTERS;
}

// Whether convolve_and_pool serves.
inline bool pools(const Shape& s, const Pool& p) {
  return p.is_two_by_two() && is_thin(s) && 4 * std::min<int64_t>(WIDEST, s.o / LANES) <= REGISTERS;
}

// What convolve gives, and the largest of each window of 2x2 of that. winners: null, if they are not needed.
void convolve_and_pool(Images images, const float* packed, const float* bias, const Shape& s, bool is_relu, float* out,
                       uint8_t* winners);

// Adds to sums [taps][o] what padded images and their gradient give.
void add_gradient(Images images, Gradient gradient, const Shape& s, float* sums);

}  // namespace direct
