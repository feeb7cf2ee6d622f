// Convolution with kernels of 3x3 by Winograd's minimal filtering F(2x2, 3x3) and F(4x4, 3x3), as Lavin and Gray describe
// it (2015, arXiv:1509.09308): a tile of 2x2 sums of a map takes 16 products with each channel in place of 36, one of 4x4
// takes 36 in place of 144.
//
// Each tile of an image, which overlaps the next tile's by two values, is turned into as many planes, and so is a
// kernel. Each plane is a product of matrices, [tile, channel] by [channel, filter], whose sums are turned into maps.
// The gradient of a kernel goes the same way backwards. With small tiles rounding is that of a sum in another order, with
// large ones about twice that of a plain sum. What is not finite spoils its whole tile.

#pragma once

#include "pools.h"
#include "shapes.h"
#include "vectors.h"

namespace minimal {

inline bool serves(const Shape& s) {
  bool is_dense = s.stride_h * s.stride_w * s.dilation_h * s.dilation_w == 1;
  return s.kh == 3 && s.kw == 3 && is_dense && s.c % LANES == 0 && s.o % LANES == 0 && s.c >= 16;
}

inline int64_t planes(const Shape& s) { return (s.tile + 2) * (s.tile + 2); }
inline int64_t tiles_high(const Shape& s) { return (s.y + s.tile - 1) / s.tile; }
inline int64_t tiles_wide(const Shape& s) { return (s.x + s.tile - 1) / s.tile; }

// Images at once, so that no tile of theirs is multiplied alone.
inline int64_t images_at_once(const Shape& s) {
  return std::max<int64_t>(1, 2 * REGISTERS / (tiles_high(s) * tiles_wide(s)));
}

// G k G': a kernel as multiply reads it, [plane][block of filters][c][filter of the block]; `count` channels from
// `first` on.
void spread_kernel(const float* kernel, const Shape& s, int64_t first, int64_t count, float* to);

// G' m G: the gradient with respect to a kernel, for `count` weights of each position from `first` on, out of the sums of products
// [plane][c][o] of several parts, `size` floats from part to part.
void gather_kernel(const float* sums, int64_t parts, int64_t size, const Shape& s, int64_t first, int64_t count,
                   float* kernel);

// What padded images give with a spread kernel: [b y x o].
void convolve(Images images, const float* spread, const float* bias, const Shape& s, bool is_relu, float* out);

// Whether convolve_and_pool serves.
inline bool pools(const Shape&, const Pool& p) { return p.is_two_by_two(); }

// What convolve gives, and the largest of each window of 2x2 of that. winners: null, if they are not needed.
void convolve_and_pool(Images images, const float* spread, const float* bias, const Shape& s, bool is_relu,
                       float* out, uint8_t* winners);

// Adds to sums [plane][c][o] what padded images and the gradients of their maps give. With a flipped kernel
// [3][3][o][c], spread, also puts the gradients with respect to the images [b h w c], from the same tiles; null: not.
void add_gradient(Images images, Gradient gradient, const Shape& s, float* sums, const float* flipped,
                  float* to_images);

}  // namespace minimal
