// Products of 1x1 convolutions and the gradient of their kernel, as they are compiled for a kind of processor, beside
// plain loops: prints the largest difference.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "pointwise.h"

int main() {
  unsigned seed = 1;
  auto draw = [&](size_t size) {
    std::vector<float> made(size);
    for (float& x : made) seed = seed * 1664525u + 1013904223u, x = float(seed >> 8) / (1 << 24) - 0.5f;
    return made;
  };
  double worst = 0;
  int cases = 0;
  for (int64_t c : {1, 3, 16, 260}) for (int64_t o : {1, 8, 24, 33, 96}) for (int64_t stride : {1, 2})
    for (Tail tail : {NOTHING, RELU, RELU6}) {
      int64_t h = 7, w = 9, y = (h - 1) / stride + 1, x = (w - 1) / stride + 1;
      pointwise::Product s{2, h, w, c, o, y, x, stride, stride};
      auto images = draw(s.b * h * w * c), kernel = draw(c * o), bias = draw(o), added = draw(s.rows() * o);
      auto sent = draw(s.rows() * o);
      std::vector<float> packed(pointwise::packed_size(c, o)), maps(s.rows() * o), to_kernel(c * o);
      pointwise::pack({}, kernel.data(), c, o, packed.data());
      bool is_followed = tail != NOTHING;
      pointwise::Ends ends{is_followed ? bias.data() : nullptr, is_followed ? added.data() : nullptr, tail};
      pointwise::multiply({}, images.data(), packed.data(), s, ends, maps.data());
      pointwise::kernel_gradient({}, images.data(), sent.data(), s, to_kernel.data());
      std::vector<double> e_kernel(c * o);
      for (int64_t row = 0; row < s.rows(); ++row) {
        int64_t place = row % (y * x);
        const float* pixel = &images[((row / (y * x) * h + place / x * stride) * w + place % x * stride) * c];
        for (int64_t f = 0; f < o; ++f) {
          double sum = is_followed ? double(bias[f]) + added[row * o + f] : 0;
          for (int64_t k = 0; k < c; ++k) {
            sum += double(pixel[k]) * kernel[k * o + f];
            e_kernel[k * o + f] += double(pixel[k]) * sent[row * o + f];
          }
          if (is_followed) sum = std::clamp(sum, 0., tail == RELU6 ? 6. : sum + 1e9);
          worst = std::max(worst, std::abs(maps[row * o + f] - sum));
        }
      }
      for (int64_t n = 0; n < c * o; ++n) worst = std::max(worst, std::abs(to_kernel[n] - e_kernel[n]));
      ++cases;
    }
  std::printf("%d cases, LANES %d, largest error %.2g\n", cases, LANES, worst);
  return worst > 1e-4;
}
