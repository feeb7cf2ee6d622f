// Depthwise convolutions and their gradients, as they are compiled for a kind of processor, beside plain loops: prints
// the largest difference.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "depthwise.h"

using Numbers = std::vector<float>;

// Calls term(map, image, kernel) with the indices of every product of a convolution.
template <typename Term>
void for_products(const depthwise::Shape& s, const Term& term) {
  for (int64_t b = 0; b < s.b; ++b)
    for (int64_t y = 0; y < s.y; ++y)
      for (int64_t x = 0; x < s.x; ++x)
        for (int64_t i = 0; i < s.kh; ++i)
          for (int64_t j = 0; j < s.kw; ++j) {
            int64_t row = y * s.stride_h - s.top + i, column = x * s.stride_w - s.left + j;
            if (row < 0 || row >= s.h || column < 0 || column >= s.w) continue;
            for (int64_t c = 0; c < s.c; ++c)
              term(((b * s.y + y) * s.x + x) * s.c + c, ((b * s.h + row) * s.w + column) * s.c + c,
                   (i * s.kw + j) * s.c + c);
          }
}

int main() {
  unsigned seed = 1;
  auto draw = [&](size_t size) {
    Numbers made(size);
    for (float& x : made) seed = seed * 1664525u + 1013904223u, x = float(seed >> 8) / (1 << 24) - 0.5f;
    return made;
  };
  double worst = 0;
  int cases = 0;
  auto compare = [&](const Numbers& got, const std::vector<double>& expected) {
    for (size_t n = 0; n < got.size(); ++n) worst = std::max(worst, std::abs(got[n] - expected[n]));
  };
  for (int64_t size : {1, 3, 5, 7}) for (int64_t stride : {1, 2}) for (int64_t w : {8, 9, 15}) for (int64_t c : {16, 32}) {
    int64_t h = 9, pad = size / 2, y = (h + 2 * pad - size) / stride + 1, x = (w + 2 * pad - size) / stride + 1;
    depthwise::Shape s{2, h, w, c, size, size, y, x, stride, stride, pad, pad};
    Numbers images = draw(s.b * s.image()), kernel = draw(size * size * c), sent = draw(s.b * s.map());
    Numbers maps(sent.size()), to_images(images.size()), to_kernel(kernel.size());
    std::vector<double> e_maps(maps.size()), e_images(images.size()), e_kernel(kernel.size());
    for_products(s, [&](int64_t map, int64_t image, int64_t weight) {
      e_maps[map] += double(images[image]) * kernel[weight];
      e_images[image] += double(sent[map]) * kernel[weight];
      e_kernel[weight] += double(images[image]) * sent[map];
    });
    depthwise::convolve({}, images.data(), kernel.data(), nullptr, s, NOTHING, maps.data());
    depthwise::gradients({}, images.data(), kernel.data(), sent.data(), s, to_images.data(), to_kernel.data());
    compare(maps, e_maps), compare(to_images, e_images), compare(to_kernel, e_kernel);
    ++cases;
  }
  std::printf("%d cases, LANES %d, largest error %.2g\n", cases, LANES, worst);
  return worst > 1e-4;
}
