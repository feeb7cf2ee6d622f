// The transforms of minimal filtering along one direction, F(2, 3) and F(4, 3): `M` sums of three products each, by M + 2
// products. In two directions a transform is applied to columns and then to rows.
//
// They are those of Toom and Cook: a kernel and a tile's gradient are polynomials, whose values at M + 1 points and at
// infinity are multiplied. With M = 2 the points are 0, 1 and -1, and all factors are 0, 1, -1 and 1/2, so that whole
// numbers stay exact. With M = 4 they are 0, +-sqrt(1/2) and +-sqrt(2), which lose less by rounding than 0, +-1 and +-2
// (Barabasz et al. 2018, arXiv:1803.10986, on the choice of points). Each of them is the inverse of another one, so
// the values of a flipped kernel are those of the kernel in another order.

#pragma once

#include "vectors.h"

namespace minimal {

template <int M>
struct Transform;

template <>
struct Transform<2> {
  static constexpr int FLIPPED[4] = {3, 1, 2, 0};  // where the values of a flipped kernel are

  static void kernel(const Vector (&k)[3], Vector (&to)[4]) {
    to[0] = k[0], to[1] = (k[0] + k[1] + k[2]) * .5f, to[2] = (k[0] - k[1] + k[2]) * .5f, to[3] = k[2];
  }
  static void image(const Vector (&d)[4], Vector (&to)[4]) {
    to[0] = d[0] - d[2], to[1] = d[1] + d[2], to[2] = d[2] - d[1], to[3] = d[1] - d[3];
  }
  static void sums(const Vector (&m)[4], Vector (&to)[2]) {
    to[0] = m[0] + m[1] + m[2], to[1] = m[1] - m[2] - m[3];
  }
  // The transposes, for gradients: of sums, of image and of kernel.
  static void to_sums(const Vector (&g)[2], Vector (&to)[4]) {
    to[0] = g[0], to[1] = g[0] + g[1], to[2] = g[0] - g[1], to[3] = -g[1];
  }
  static void to_image(const Vector (&v)[4], Vector (&to)[4]) {
    to[0] = v[0], to[1] = v[1] - v[2] + v[3], to[2] = v[1] + v[2] - v[0], to[3] = -v[3];
  }
  static void to_kernel(const Vector (&m)[4], Vector (&to)[3]) {
    Vector even = (m[1] + m[2]) * .5f;
    to[0] = m[0] + even, to[1] = (m[1] - m[2]) * .5f, to[2] = even + m[3];
  }
};

template <>
struct Transform<4> {
  static constexpr int FLIPPED[6] = {5, 3, 4, 1, 2, 0};
  static constexpr float ROOT = 1.41421356f, HALF = .70710678f, THIRD = 1.f / 3;

  static void kernel(const Vector (&k)[3], Vector (&to)[6]) {
    Vector odd = k[1] * (ROOT * THIRD), low = (2 * k[0] + k[2]) * THIRD, high = (k[0] + 2 * k[2]) * THIRD;
    to[0] = k[0], to[1] = low + odd, to[2] = low - odd, to[3] = high + odd, to[4] = high - odd, to[5] = k[2];
  }
  static void image(const Vector (&d)[6], Vector (&to)[6]) {
    Vector low = 2 * d[2] - d[4], low_odd = ROOT * d[1] - HALF * d[3];
    Vector high = .5f * d[4] - .25f * d[2], high_odd = HALF * d[3] - .5f * HALF * d[1];
    to[0] = d[0] - 2.5f * d[2] + d[4], to[1] = low + low_odd, to[2] = low - low_odd;
    to[3] = high + high_odd, to[4] = high - high_odd, to[5] = d[1] - 2.5f * d[3] + d[5];
  }
  static void sums(const Vector (&m)[6], Vector (&to)[4]) {
    Vector low = m[1] + m[2], low_odd = m[1] - m[2], high = m[3] + m[4], high_odd = m[3] - m[4];
    to[0] = m[0] + low + high, to[1] = HALF * low_odd + ROOT * high_odd;
    to[2] = .5f * low + 2 * high, to[3] = .5f * HALF * low_odd + 2 * ROOT * high_odd + m[5];
  }
  static void to_sums(const Vector (&g)[4], Vector (&to)[6]) {
    Vector low = g[0] + .5f * g[2], low_odd = HALF * g[1] + .5f * HALF * g[3];
    Vector high = g[0] + 2 * g[2], high_odd = ROOT * g[1] + 2 * ROOT * g[3];
    to[0] = g[0], to[1] = low + low_odd, to[2] = low - low_odd;
    to[3] = high + high_odd, to[4] = high - high_odd, to[5] = g[3];
  }
  static void to_image(const Vector (&v)[6], Vector (&to)[6]) {
    Vector low = v[1] + v[2], low_odd = v[1] - v[2], high = v[3] + v[4], high_odd = v[3] - v[4];
    to[0] = v[0], to[1] = ROOT * low_odd - .5f * HALF * high_odd + v[5];
    to[2] = 2 * low - 2.5f * v[0] - .25f * high, to[3] = HALF * high_odd - HALF * low_odd - 2.5f * v[5];
    to[4] = v[0] - low + .5f * high, to[5] = v[5];
  }
  static void to_kernel(const Vector (&m)[6], Vector (&to)[3]) {
    Vector low = (m[1] + m[2]) * THIRD, high = (m[3] + m[4]) * THIRD, odd = m[1] - m[2] + m[3] - m[4];
    to[0] = m[0] + 2 * low + high, to[1] = odd * (ROOT * THIRD), to[2] = low + 2 * high + m[5];
  }
};

}  // namespace minimal
