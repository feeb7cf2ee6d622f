// Convolutions, as they are compiled for a kind of processor, beside a plain loop: prints the largest difference.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "direct.h"
#include "minimal.h"
#include "vectors.h"
int main() {
  unsigned seed = 1; auto draw = [&] { seed = seed * 1664525u + 1013904223u; return float(seed >> 8) / (1 << 24) - 0.5f; };
  double worst = 0; int cases = 0;
  for (int tile : {2, 4}) for (int c : {1, 3, 16, 32}) for (int o : {16, 32, 48}) for (int w : {9, 14, 28, 30}) {
    Shape s{1, 12, w, c, 3, 3, o, 10, w - 2, 1, 1, 1, 1, 0, 0, 0, 0, tile};
    if (!minimal::serves(s) && tile == 4) continue;
    std::vector<float> im(12 * w * c + 64), k(9 * c * o), b(o), out(10 * (w - 2) * o), pk(36 * c * o);
    for (auto* v : {&im, &k, &b}) for (auto& x : *v) x = draw();
    Floats aligned; float* packed = aligned.of(pk.size());
    Images images{im.data(), 12 * w * c, w * c, 12, w};
    if (minimal::serves(s)) { minimal::spread_kernel(k.data(), s, 0, c, packed); minimal::convolve(images, packed, b.data(), s, false, out.data()); }
    else { direct::pack(k.data(), s, packed); direct::convolve(images, packed, b.data(), s, false, out.data()); }
    for (int y = 0; y < 10; ++y) for (int x = 0; x < w - 2; ++x) for (int f = 0; f < o; ++f) {
      double e = b[f];
      for (int i = 0; i < 3; ++i) for (int j = 0; j < 3; ++j) for (int d = 0; d < c; ++d) e += double(im[((y + i) * w + x + j) * c + d]) * k[((i * 3 + j) * c + d) * o + f];
      worst = std::max(worst, std::abs(e - out[(y * (w - 2) + x) * o + f]));
    }
    ++cases;
  }
  std::printf("%d cases, LANES %d, largest error %.2g\n", cases, LANES, worst);
  return worst > 1e-4;
}
