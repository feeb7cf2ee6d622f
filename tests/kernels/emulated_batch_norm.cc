// Batch norm with relu and its gradients, as compiled for a kind of processor, beside plain loops: prints the largest
// difference.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "batch_norm.h"

int main() {
  unsigned seed = 1;
  auto draw = [&](size_t size) {
    std::vector<float> made(size);
    for (float& x : made) seed = seed * 1664525u + 1013904223u, x = float(seed >> 8) / (1 << 24) - 0.4f;
    return made;
  };
  double worst = 0;
  int cases = 0;
  auto compare = [&](float got, double expected) { worst = std::max(worst, std::abs(got - expected)); };
  for (int64_t c : {1, 3, 8, 16, 24, 33, 64}) for (int64_t pixels : {1, 7, 49, 700}) {
    batch_norm::Shape s{5, pixels, c};
    int64_t size = s.b * pixels * c;
    const float epsilon = 1e-3f;
    auto images = draw(size), sent = draw(size), scale = draw(c), offset = draw(c);
    std::vector<float> mean(c), variance(c), maps(size), to_images(size), to_scale(c), to_offset(c);
    batch_norm::measure({}, images.data(), nullptr, s, mean.data(), variance.data());
    batch_norm::normalize({}, images.data(), mean.data(), variance.data(), scale.data(), offset.data(), epsilon, RELU, s,
                          maps.data());
    batch_norm::gradients({}, images.data(), sent.data(), nullptr, mean.data(), variance.data(), scale.data(),
                          offset.data(), epsilon, RELU, s, to_images.data(), to_scale.data(), to_offset.data());
    for (int64_t k = 0; k < c; ++k) {
      double m = 0, v = 0, all = double(s.b * pixels), sum = 0, product = 0;
      for (int64_t n = k; n < size; n += c) m += images[n] / all;
      for (int64_t n = k; n < size; n += c) v += (images[n] - m) * (images[n] - m) / all;
      compare(mean[k], m), compare(variance[k], v);
      double by = 1 / std::sqrt(v + epsilon);
      auto distance = [&](int64_t n) { return (images[n] - m) * by; };
      auto passed = [&](int64_t n) { return maps[n] > 0 ? double(sent[n]) : 0.; };  // as where the kernel bends
      for (int64_t n = k; n < size; n += c) {
        compare(maps[n], std::max(0., distance(n) * scale[k] + offset[k]));
        sum += passed(n), product += passed(n) * distance(n);
      }
      compare(to_offset[k], sum), compare(to_scale[k], product);
      for (int64_t n = k; n < size; n += c)
        compare(to_images[n], scale[k] * by * (passed(n) - sum / all - distance(n) * product / all));
    }
    ++cases;
  }
  std::printf("%d cases, LANES %d, largest error %.2g\n", cases, LANES, worst);
  return worst > 1e-3;
}
