// The sizes of a convolution and of a pool over its maps. Images are NHWC, kernels HWIO.

#pragma once

#include <algorithm>
#include <cstdint>

// Pads are in front (top, left) and behind. c channels, o filters, a multiple of LANES.
struct Shape {
  int64_t b, h, w, c, kh, kw, o, y, x;
  int64_t stride_h, stride_w, dilation_h, dilation_w, top, left, bottom, right;
  int64_t tile = 2;  // the side of a tile of sums in minimal filtering, 2 or 4
  int64_t row() const { return (w + left + right) * c; }
  bool is_padded() const { return top || left || bottom || right; }
  // Rows of the padded image that so many rows of maps depend on.
  int64_t rows_below(int64_t rows) const { return (rows - 1) * stride_h + (kh - 1) * dilation_h + 1; }
  int64_t image() const { return h * w * c; }
  int64_t map() const { return y * x * o; }
  // So many images and rows of their maps.
  Shape part(int64_t images, int64_t rows) const {
    Shape some = *this;
    some.b = images, some.y = rows;
    return some;
  }
};

// Images of `h` rows of `w` pixels, `apart` floats from one to the next and `pitch` from row to row. Around them are
// zeros, `top` rows and `left` pixels before the first and as many as there must be behind, which are not in memory.
struct Images {
  const float* values;
  int64_t apart, pitch, h, w, top = 0, left = 0;
  const float* from(int64_t image) const { return values + image * apart; }
};

// Gradients with respect to maps: `pitch` floats from row to row, `apart` from image to image.
struct Gradient {
  const float* values;
  int64_t pitch, apart;
  Gradient from(int64_t image, int64_t row) const { return at(image * apart + row * pitch); }
  Gradient at(int64_t offset) const { return {values + offset, pitch, apart}; }
};

// The window of a pool, without padding, and how many windows there are. A window of one is no pool.
struct Pool {
  int64_t h, w, stride_h, stride_w, y, x;
  bool is_none() const { return h * w == 1 && stride_h * stride_w == 1; }
  bool covers() const { return h == stride_h && w == stride_w; }
  bool is_two_by_two() const { return h == 2 && w == 2 && covers(); }
  bool overlaps_by_one() const { return h == 2 && w == 2 && stride_h == 1 && stride_w == 1; }
  // Rows of maps below so many rows of windows; columns below all.
  int64_t rows(int64_t count) const { return (count - 1) * stride_h + h; }
  int64_t columns() const { return (x - 1) * stride_w + w; }
  int64_t size(const Shape& s) const { return y * x * s.o; }
  // Rows of windows at once, a multiple of 4 of those that are not all, so many that their maps stay in the second
  // cache; maps that windows share are made once.
  int64_t band(const Shape& s) const {
    constexpr int64_t CACHED = 65536;  // floats
    return h > stride_h ? y : std::clamp<int64_t>(CACHED / (stride_h * s.x * s.o) / 4 * 4, 4, std::max<int64_t>(4, y));
  }
};
