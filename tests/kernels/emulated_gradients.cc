// Gradients of convolutions with respect to kernels and, by minimal filtering, to images, as they are compiled for a kind
// of processor, beside plain loops: prints the largest difference.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "direct.h"
#include "minimal.h"

using Numbers = std::vector<float>;

// Calls term(map, image, weight) with the indices of every product of a convolution.
template <typename Term>
void for_products(const Shape& s, const Term& term) {
  for (int64_t b = 0; b < s.b; ++b)
    for (int64_t y = 0; y < s.y; ++y)
      for (int64_t x = 0; x < s.x; ++x)
        for (int64_t i = 0; i < s.kh; ++i)
          for (int64_t j = 0; j < s.kw; ++j) {
            int64_t row = y * s.stride_h - s.top + i, column = x * s.stride_w - s.left + j;
            if (row < 0 || row >= s.h || column < 0 || column >= s.w) continue;
            for (int64_t c = 0; c < s.c; ++c)
              for (int64_t o = 0; o < s.o; ++o)
                term(((b * s.y + y) * s.x + x) * s.o + o, ((b * s.h + row) * s.w + column) * s.c + c,
                     ((i * s.kw + j) * s.c + c) * s.o + o);
          }
}

int main() {
  unsigned seed = 1;
  auto draw = [&](size_t size) {
    Numbers made(size + LANES);  // direct::add_gradient reads whole vectors
    for (float& x : made) seed = seed * 1664525u + 1013904223u, x = float(seed >> 8) / (1 << 24) - 0.5f;
    return made;
  };
  double worst = 0;
  int cases = 0;
  auto compare = [&](const float* got, const std::vector<double>& expected) {
    for (size_t n = 0; n < expected.size(); ++n) worst = std::max(worst, std::abs(got[n] - expected[n]));
  };
  for (int64_t tile : {2, 4}) for (int64_t c : {1, 3, 16, 32}) for (int64_t o : {16, 48}) for (int64_t w : {7, 14})
    for (int64_t pad : {0, 1}) for (int64_t stride : {1, 2}) {
      int64_t h = 9, y = (h + 2 * pad - 3) / stride + 1, x = (w + 2 * pad - 3) / stride + 1;
      Shape s{2, h, w, c, 3, 3, o, y, x, stride, stride, 1, 1, pad, pad, pad, pad, tile};
      bool is_minimal = minimal::serves(s);
      if (!is_minimal && (tile == 4 || pad)) continue;  // zeros around images are in memory, as if they were images
      Numbers images = draw(s.b * s.image()), kernel = draw(9 * c * o), sent = draw(s.b * s.map());
      std::vector<double> e_images(s.b * s.image()), e_kernel(9 * c * o);
      for_products(s, [&](int64_t map, int64_t image, int64_t weight) {
        e_images[image] += double(sent[map]) * kernel[weight];
        e_kernel[weight] += double(images[image]) * sent[map];
      });
      Images below{images.data(), s.image(), w * c, h, w, pad, pad};
      Gradient gradient{sent.data(), x * o, s.map()};
      Numbers to_kernel(9 * c * o), to_images(images.size());
      if (!is_minimal) direct::add_gradient(below, gradient, s, to_kernel.data());
      else {
        Numbers flipped(9 * c * o);  // [3 3 o c]
        for (int64_t n = 0; n < 9; ++n) for (int64_t k = 0; k < c; ++k) for (int64_t f = 0; f < o; ++f)
          flipped[((8 - n) * o + f) * c + k] = kernel[(n * c + k) * o + f];
        Shape back = s;
        back.c = o, back.o = c;
        Floats planes, sums;
        int64_t size = minimal::planes(s) * c * o;
        float *spread = planes.of(size), *added = sums.of(size);
        minimal::spread_kernel(flipped.data(), back, 0, o, spread);
        std::fill_n(added, size, 0.f);
        minimal::add_gradient(below, gradient, s, added, spread, to_images.data());
        minimal::gather_kernel(added, 1, size, s, 0, c * o, to_kernel.data());
        compare(to_images.data(), e_images);
      }
      compare(to_kernel.data(), e_kernel);
      ++cases;
    }
  std::printf("%d cases, LANES %d, largest error %.2g\n", cases, LANES, worst);
  return worst > 1e-4;
}
