// What minimal.h declares. A file of its own, so that it is compiled beside the others of the library.

#include "minimal.h"

#include <limits>

#include "pools.h"
#include "shapes.h"
#include "transforms.h"
#include "vectors.h"

namespace minimal {

// Tiles that are multiplied at once with so many vectors of filters.
constexpr int tiles_of_block(int vectors) { return REGISTERS / vectors; }

// Columns or rows of a tile that one piece of code turns. All, if there are 32 registers; one, if there are 16, because the
// addresses of 36 planes would lie on the stack.
constexpr int AT_ONCE = REGISTERS > 16 ? 6 : 1;

// Some tiles' planes: [plane][vector of channels][room for tiles][LANES].
struct Planes {
  float* values;
  int64_t room, pitch;  // floats from plane to plane
  float* at(int64_t plane, int64_t channel, int64_t tile) const {
    return values + plane * pitch + channel * room + tile * LANES;
  }
};

// Tiles that lie side by side in an image and in the planes; row and column are of the first one's first value.
struct Run {
  int64_t image, row, column, count, place;
};

// Tiles that are multiplied together. A tile that maps end in has fewer rows or columns of sums, and those need nothing
// of the last planes of that direction. So tiles are put in such an order that each plane needs some side by side:
// those that end below, those that are whole, those that end at the right, those that do both.
template <int M>
class Group {
 public:
  Group(const Shape& s, int64_t first, int64_t count) : s_(s), first_(first), count_(count) {
    int64_t tiles[4] = {};
    for_runs([&](const Run& run) { tiles[kind(run.row, run.column)] += run.count; });
    for (int n = 0; n < 4; ++n) begin_[n + 1] = begin_[n] + tiles[n];
  }

  // Where the tiles that a plane needs begin, and where they end.
  int64_t begin(int64_t plane) const { return begin_[is_last(plane / (M + 2)) ? 1 : 0]; }
  int64_t end(int64_t plane) const {
    return begin_[is_last(plane % (M + 2)) ? 2 : is_last(plane / (M + 2)) ? 3 : 4];
  }

  template <typename Work>
  void for_runs(const Work& work) const {
    int64_t wide = tiles_wide(s_), whole = s_.x / M, next[4];
    std::copy_n(begin_, 4, next);
    for (int64_t tile = first_, count; tile < first_ + count_; tile += count) {
      int64_t rows = tile / wide, row = M * (rows % tiles_high(s_)), column = tile % wide;
      count = std::min(first_ + count_ - tile, (column < whole ? whole : wide) - column);
      int64_t& place = next[kind(row, M * column)];
      work(Run{rows / tiles_high(s_), row, M * column, count, place});
      place += count;
    }
  }

  // Calls work(place, image, row, column) for all tiles.
  template <typename Work>
  void for_tiles(const Work& work) const {
    for_runs([&](const Run& run) {
      for (int64_t n = 0; n < run.count; ++n) work(run.place + n, run.image, run.row, run.column + M * n);
    });
  }

 private:
  const Shape& s_;
  int64_t first_, count_, begin_[5] = {};

  static bool is_last(int64_t index) { return index == M + 1; }
  int kind(int64_t row, int64_t column) const {
    bool is_high = row + M <= s_.y, is_wide = column + M <= s_.x;
    return is_wide ? is_high : 3 - is_high;
  }
};

// The tiles of images in groups that stay in the second cache: calls work(group, channels' planes, filters' planes).
// There is room for as many more as a block of tiles may reach beyond.
template <int M, typename Work>
void in_groups(const Shape& s, const Work& work) {
  constexpr int64_t CACHED = 49152, FEWEST = 48, PLANES = (M + 2) * (M + 2);  // floats; tiles
  static thread_local Floats channels, filters;
  int64_t block = tiles_of_block(std::min<int64_t>(WIDEST, s.o / LANES)), all = s.b * tiles_high(s) * tiles_wide(s);
  int64_t most = std::min(all, std::max<int64_t>(FEWEST / block, CACHED / (PLANES * (s.c + s.o) * block)) * block);
  // Planes that lie a multiple of a page apart would be in each other's place in the first cache.
  auto planes = [most](Floats& memory, int64_t depth) {
    int64_t room = most + REGISTERS, size = room * depth, pitch = size % 1024 ? size : size + LANES;
    return Planes{memory.of(PLANES * pitch), room, pitch};
  };
  Planes of_channels = planes(channels, s.c), of_filters = planes(filters, s.o);
  for (int64_t first = 0; first < all; first += most)
    work(Group<M>(s, first, std::min(most, all - first)), of_channels, of_filters);
}

// B' d B of Lavin and Gray for tiles of images with zeros around them, first of their columns, then of their rows. What a
// tile at the edge of a map sees beyond it changes no value that is kept, but for rounding.
template <int M>
void spread_images(Images images, const Shape& s, const Group<M>& group, Planes to) {
  constexpr int N = M + 2, COLUMN = N * LANES;
  static thread_local Floats memory, of_columns;
  const int64_t channels = s.c, plane = to.pitch, zero = (images.w + images.left) * channels;
  float *const zeros = memory.of(zero), *const columns = of_columns.of((s.x + M + 2) * COLUMN);
  std::fill_n(zeros, zero, 0.f);
  group.for_runs([&, channels, plane, zeros, columns](const Run& run) {
    const int64_t first = run.column - images.left, width = M * run.count + 2;
    const int64_t begin = std::clamp<int64_t>(-first, 0, width), end = std::clamp(images.w - first, begin, width);
    for (int64_t c = 0; c < channels; c += LANES) {
      const float* rows[N];
      for (int i = 0; i < N; ++i) {
        int64_t row = run.row + i - images.top;
        bool is_inside = row >= 0 && row < images.h;
        rows[i] = is_inside ? images.from(run.image) + row * images.pitch + first * channels + c : zeros;
      }
      std::fill_n(columns, begin * COLUMN, 0.f);
      std::fill_n(columns + end * COLUMN, (width - end) * COLUMN, 0.f);
      for (int64_t x = begin; x < end; ++x) {
        Vector v[N], turned[N];
#pragma GCC unroll 6
        for (int i = 0; i < N; ++i) v[i] = load(rows[i] + x * channels);
        Transform<M>::image(v, turned);
#pragma GCC unroll 6
        for (int i = 0; i < N; ++i) store(columns + x * COLUMN + i * LANES, turned[i]);
      }
      const float* from = columns;
      float* tile = to.at(0, c, run.place);
      for (int64_t n = 0; n < run.count; ++n, tile += LANES, from += M * COLUMN) {
        float* at = tile;
#pragma GCC unroll 6
        for (int i = 0; i < N; ++i, at += N * plane) {
          Vector d[N], turned[N];
#pragma GCC unroll 6
          for (int j = 0; j < N; ++j) d[j] = load(from + j * COLUMN + i * LANES);
          Transform<M>::image(d, turned);
#pragma GCC unroll 6
          for (int j = 0; j < N; ++j) store(at + j * plane, turned[j]);
        }
      }
    }
  });
}

// A' m A: the sums of tiles out of those of products, with the bias, two rows of a tile at a time:
// work(image, row, column, o, sums [2][M]).
template <int M, typename Work>
void gather(Planes from, const Shape& s, const Group<M>& group, const float* bias, const Work& work) {
  constexpr int N = M + 2;
  const int64_t pitch = from.pitch, filters = s.o;
  group.for_tiles([&, pitch, filters](int64_t n, int64_t image, int64_t row, int64_t column) {
    for (int64_t o = 0; o < filters; o += LANES) {
      const float* at = from.at(0, o, n);
      Vector t[M][N], bias_of_o = load(bias + o);
#pragma GCC unroll AT_ONCE
      for (int j = 0; j < N; ++j, at += pitch) {
        Vector m[N], turned[M];
#pragma GCC unroll 6
        for (int i = 0; i < N; ++i) m[i] = load(at + N * i * pitch);
        // A' m A adds plane (1, 1) once to each value of a small tile.
        if (M == 2 && j == 1) m[1] += bias_of_o;
        Transform<M>::sums(m, turned);
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i) t[i][j] = turned[i];
      }
#pragma GCC unroll 2
      for (int i = 0; i < M; i += 2) {
        Vector sums[2][M];
        Transform<M>::sums(t[i], sums[0]), Transform<M>::sums(t[i + 1], sums[1]);
        if (M > 2)
#pragma GCC unroll 4
          for (int j = 0; j < M; ++j) sums[0][j] += bias_of_o, sums[1][j] += bias_of_o;
        work(image, row + i, column, o, sums);
      }
    }
  });
}

// Their maps, or their relu.
template <int M>
void gather_maps(Planes from, const Shape& s, const Group<M>& group, const float* bias, bool is_relu, float* maps) {
  const int64_t high = s.y, wide = s.x, filters = s.o, pitch = s.x * s.o, size = s.map();
  const Vector least = Vector{} + (is_relu ? 0 : -std::numeric_limits<float>::infinity());
  auto put = [=](int64_t image, int64_t row, int64_t column, int64_t o, const Vector(&sums)[2][M]) {
    float* to = maps + image * size + row * pitch + column * filters + o;
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i, to += pitch) {
      if (row + i >= high) return;
#pragma GCC unroll 4
      for (int j = 0; j < M; ++j)
        if (column + j < wide) store(to + j * filters, (sums[i][j] <= least) ? least : sums[i][j]);  // NaN stays
    }
  };
  gather(from, s, group, bias, put);
}

// The largest of each 2x2 of a tile, which are the windows of a pool.
template <int M, bool HAS_WINNERS>
void gather_windows(Planes from, const Shape& s, const Group<M>& group, const float* bias, bool is_relu, float* out,
                    uint8_t* winners) {
  const int64_t high = s.y, wide = s.x, filters = s.o, size = s.map() / 4;
  gather(from, s, group, bias, [=](int64_t image, int64_t row, int64_t column, int64_t o, const Vector(&sums)[2][M]) {
    if (row >= high) return;
#pragma GCC unroll 2
    for (int j = 0; j < M; j += 2) {
      if (column + j >= wide) continue;
      int64_t at = image * size + (row * wide / 4 + (column + j) / 2) * filters + o;
      Largest<HAS_WINNERS> largest{sums[0][j]};
      largest.take(sums[0][j + 1], 1), largest.take(sums[1][j], 2), largest.take(sums[1][j + 1], 3);
      largest.put(is_relu, at, out, winners);
    }
  });
}

// A g A': the gradients with respect to the maps of tiles.
template <int M>
void spread_gradient(Gradient gradient, const Shape& s, const Group<M>& group, Planes to) {
  constexpr int N = M + 2;
  const int64_t pitch = to.pitch, filters = s.o, width = gradient.pitch;
  group.for_tiles([&, pitch, filters, width](int64_t n, int64_t image, int64_t row, int64_t column) {
    const float* from = gradient.from(image, row).values + column * filters;
    const int64_t high = s.y - row, wide = s.x - column;
    for (int64_t o = 0; o < filters; o += LANES) {
      Vector t[N][M];
#pragma GCC unroll AT_ONCE
      for (int j = 0; j < M; ++j) {
        Vector g[M] = {}, turned[N];
        if (j < wide)
#pragma GCC unroll 4
          for (int i = 0; i < M; ++i)
            if (i < high) g[i] = load(from + i * width + j * filters + o);
        Transform<M>::to_sums(g, turned);
#pragma GCC unroll 6
        for (int i = 0; i < N; ++i) t[i][j] = turned[i];
      }
      float* at = to.at(0, o, n);
#pragma GCC unroll AT_ONCE
      for (int i = 0; i < N; ++i, at += N * pitch) {
        Vector turned[N];
        Transform<M>::to_sums(t[i], turned);
#pragma GCC unroll 6
        for (int j = 0; j < N; ++j) store(at + j * pitch, turned[j]);
      }
    }
  });
}

template <int M>
void spread_kernel_by(const float* kernel, const Shape& s, int64_t first, int64_t count, float* to) {
  constexpr int N = M + 2;
  int64_t size = s.c * s.o;
  in_blocks(s.o, [&](int64_t filter, int f) {
    for (int64_t c = first; c < first + count; ++c)
      for (int64_t n = 0; n < f; ++n) {
        const float* from = kernel + c * s.o + filter + n * LANES;
        float* at = to + filter * s.c + (c * f + n) * LANES;
        Vector t[N][3];
        for (int j = 0; j < 3; ++j) {
          Vector turned[N];
          Transform<M>::kernel({load(from + j * size), load(from + (3 + j) * size), load(from + (6 + j) * size)}, turned);
          for (int i = 0; i < N; ++i) t[i][j] = turned[i];
        }
        for (int i = 0; i < N; ++i, at += N * size) {
          Vector turned[N];
          Transform<M>::kernel(t[i], turned);
          for (int j = 0; j < N; ++j) store(at + j * size, turned[j]);
        }
      }
  });
}

void spread_kernel(const float* kernel, const Shape& s, int64_t first, int64_t count, float* to) {
  (s.tile == 4 ? spread_kernel_by<4> : spread_kernel_by<2>)(kernel, s, first, count, to);
}

template <int M>
void gather_kernel_by(const float* sums, int64_t parts, int64_t size, const Shape& s, int64_t first, int64_t count,
                      float* kernel) {
  constexpr int N = M + 2;
  int64_t step = s.c * s.o;
  for (int64_t n = first; n < first + count; n += LANES) {
    Vector t[3][N];
    for (int j = 0; j < N; ++j) {
      Vector m[N] = {}, turned[3];
      for (int64_t part = 0; part < parts; ++part)
        for (int i = 0; i < N; ++i) m[i] += load(sums + part * size + (N * i + j) * step + n);
      Transform<M>::to_kernel(m, turned);
      for (int i = 0; i < 3; ++i) t[i][j] = turned[i];
    }
    for (int i = 0; i < 3; ++i) {
      Vector turned[3];
      Transform<M>::to_kernel(t[i], turned);
      for (int j = 0; j < 3; ++j) store(kernel + (3 * i + j) * step + n, turned[j]);
    }
  }
}

void gather_kernel(const float* sums, int64_t parts, int64_t size, const Shape& s, int64_t first, int64_t count,
                   float* kernel) {
  (s.tile == 4 ? gather_kernel_by<4> : gather_kernel_by<2>)(sums, parts, size, s, first, count, kernel);
}

// Products of one plane for `P` tiles and `F` vectors of filters: sums over c channels. next: what of the kernel is read
// later, so many lines for each vector of channels.
template <int P, int F>
void multiply_block(const float* tiles, const float* kernel, int64_t c, int64_t room, float* out, const float* next,
                    int64_t lines) {
  Vector sum[P][F] = {};
  for (int64_t first = 0; first < c; first += LANES, tiles += room * LANES, kernel += LANES * F * LANES) {
    fetch(next, lines), next += lines * LINE;
#pragma GCC unroll 16
    for (int k = 0; k < LANES; ++k) {
      Vector by[F];
#pragma GCC unroll 4
      for (int f = 0; f < F; ++f) by[f] = load(kernel + (k * F + f) * LANES);
#pragma GCC unroll 32
      for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
        for (int f = 0; f < F; ++f) sum[p][f] += tiles[p * LANES + k] * by[f];
    }
  }
#pragma GCC unroll 32
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
    for (int f = 0; f < F; ++f) store(out + (f * room + p) * LANES, sum[p][f]);
}

template <int P, int F>
void multiply_by(const float* tiles, const float* kernel, int64_t c, int64_t count, int64_t room, float* out) {
  // The next filters' lie behind these ones'; they come from memory while these are multiplied, a part each time.
  int64_t parts = std::max<int64_t>(1, (count + P - 1) / P), lines = (LANES * F * LANES / LINE + parts - 1) / parts;
  const float* next = kernel + c * F * LANES;
  for (int64_t n = 0; n < count; n += P, next += lines * LINE * (c / LANES))
    multiply_block<P, F>(tiles + n * LANES, kernel, c, room, out + n * LANES, next, lines);
}

// In blocks of `P` tiles, or of a sixth less or more where that computes fewer beyond the last: 7 for maps of 14 and 28.
template <int F>
void multiply(const float* tiles, const float* kernel, int64_t c, int64_t count, int64_t room, float* out) {
  constexpr int P = tiles_of_block(F), Q = P - (P + 5) / 6, R = F == 4 && P == 6 ? 7 : P;
  auto computed = [count](int64_t block) { return (count + block - 1) / block * block; };
  if (computed(R) < std::min(computed(P), computed(Q))) multiply_by<R, F>(tiles, kernel, c, count, room, out);
  else if (computed(Q) < computed(P)) multiply_by<Q, F>(tiles, kernel, c, count, room, out);
  else multiply_by<P, F>(tiles, kernel, c, count, room, out);
}

// The sums of products of padded images with a spread kernel: gather(group, planes of filters), group by group.
template <int M, typename Gather>
void multiply_planes(Images images, const float* spread, const Shape& s, const Gather& gather) {
  in_groups<M>(s, [&](const Group<M>& group, Planes channels, Planes filters) {
    spread_images(images, s, group, channels);
    for (int64_t plane = 0; plane < planes(s); ++plane) {
      int64_t begin = group.begin(plane), count = group.end(plane) - begin;
      in_blocks(s.o, [&](int64_t filter, auto f) {
        multiply<f.value>(channels.at(plane, 0, begin), spread + (plane * s.o + filter) * s.c, s.c, count,
                          channels.room, filters.at(plane, filter, begin));
      });
    }
    gather(group, filters);
  });
}

template <int M>
void convolve_by(Images images, const float* spread, const float* bias, const Shape& s, bool is_relu, float* out) {
  multiply_planes<M>(images, spread, s, [&](const Group<M>& group, Planes sums) {
    gather_maps<M>(sums, s, group, bias, is_relu, out);
  });
}

void convolve(Images images, const float* spread, const float* bias, const Shape& s, bool is_relu, float* out) {
  (s.tile == 4 ? convolve_by<4> : convolve_by<2>)(images, spread, bias, s, is_relu, out);
}

template <int M>
void convolve_and_pool_by(Images images, const float* spread, const float* bias, const Shape& s, bool is_relu,
                          float* out, uint8_t* winners) {
  auto gather = winners ? gather_windows<M, true> : gather_windows<M, false>;
  multiply_planes<M>(images, spread, s, [&](const Group<M>& group, Planes sums) {
    gather(sums, s, group, bias, is_relu, out, winners);
  });
}

void convolve_and_pool(Images images, const float* spread, const float* bias, const Shape& s, bool is_relu,
                       float* out, uint8_t* winners) {
  (s.tile == 4 ? convolve_and_pool_by<4> : convolve_and_pool_by<2>)(images, spread, bias, s, is_relu, out, winners);
}

// Adds to sums [c][o] of one plane for `T` channels from `FIRST` on and `F` vectors of filters.
template <int FIRST, int T, int F>
void add_block(const float* tiles, const float* gradient, int64_t count, int64_t room, int64_t o, float* sums) {
  Vector sum[T][F];
  sums += FIRST * o;
  for (int t = 0; t < T; ++t)
    for (int f = 0; f < F; ++f) sum[t][f] = load(sums + t * o + f * LANES);
  for (int64_t n = 0; n < count; ++n, tiles += LANES, gradient += LANES) {
    Vector g[F];
#pragma GCC unroll 2
    for (int f = 0; f < F; ++f) g[f] = load(gradient + f * room * LANES);
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 2
      for (int f = 0; f < F; ++f)
        sum[t][f] += tiles[(FIRST + t) / LANES * LANES * room + (FIRST + t) % LANES] * g[f];
  }
  for (int t = 0; t < T; ++t)
    for (int f = 0; f < F; ++f) store(sums + t * o + f * LANES, sum[t][f]);
}

// B v B', the way back of spread_images: adds up the gradients with respect to the images of tiles, of which neighbours
// overlap. What no tile has put yet is put, so that images need no zeros; tiles come row by row. The order of additions
// is the same wherever a group ends: what lies in memory, then the tile before, then the tile. Where no window lies,
// nothing is put.
template <int M>
void gather_images(Planes from, const Shape& s, const Group<M>& group, float* images) {
  constexpr int N = M + 2;
  const int64_t width = std::min(s.w, s.x + 2 - s.left), channels = s.c, pitch = from.pitch;
  group.for_runs([&, width, channels, pitch](const Run& run) {
    const bool is_high = run.row + M <= s.y, is_wide = run.column + M <= s.x;  // else the last planes were not computed
    const int64_t count = run.count, row_begin = run.row;
    for (int64_t c = 0; c < channels; c += LANES) {
      float* rows[N];
      for (int i = 0; i < N; ++i) {
        int64_t row = row_begin + i - s.top;
        bool is_inside = row >= 0 && row < s.h && row_begin + i < s.y + 2;
        rows[i] = is_inside ? images + run.image * s.image() + row * s.w * channels + c : nullptr;
      }
      auto put = [=](float* row, int64_t column, Vector before, Vector value, bool is_added) {
        if (column < 0 || column >= width) return;
        float* to = row + column * channels;
        store(to, (is_added ? load(to) + before : before) + value);
      };
      Vector before[N][2] = {};
      int64_t x = run.column - s.left;
      const bool is_first = run.column == 0;
      const float* tile = from.at(0, c, run.place);
      for (int64_t n = 0; n < count; ++n, x += M, tile += LANES) {
        const bool is_added = n == 0 && !is_first;
        Vector d[N][N];
        const float* at = tile;
#pragma GCC unroll AT_ONCE
        for (int j = 0; j < N; ++j, at += pitch) {
          Vector v[N] = {}, turned[N];
          if (j <= M || is_wide) {
#pragma GCC unroll 6
            for (int i = 0; i <= M; ++i) v[i] = load(at + N * i * pitch);
            if (is_high) v[M + 1] = load(at + N * (M + 1) * pitch);
          }
          Transform<M>::to_image(v, turned);
#pragma GCC unroll 6
          for (int i = 0; i < N; ++i) d[i][j] = turned[i];
        }
#pragma GCC unroll AT_ONCE
        for (int i = 0; i < N; ++i) {
          Vector turned[N], *last = before[i];
          Transform<M>::to_image(d[i], turned);
          if (float* row = rows[i]) {
            bool is_below = i < 2 && row_begin > 0;
            put(row, x, last[0], turned[0], is_added || is_below);
            put(row, x + 1, last[1], turned[1], is_added || is_below);
#pragma GCC unroll 2
            for (int j = 2; j < M; ++j) put(row, x + j, Vector{}, turned[j], is_below);
          }
          last[0] = turned[M], last[1] = turned[M + 1];
        }
      }
      for (int i = 0; i < N; ++i)
        for (int j = 0; j < 2 && rows[i]; ++j)
          put(rows[i], x + j, before[i][j], Vector{}, i < 2 && row_begin > 0);
    }
  });
}

// Adds the products of one plane to sums [c][o].
inline void add_plane(Planes channels, Planes filters, const Shape& s, int64_t plane, int64_t begin, int64_t count,
                      float* sums) {
  constexpr int HALF = LANES / 2, ALL = LANES;
  int64_t room = channels.room;
  for (int64_t c = 0; c < s.c; c += LANES) {
    const float* tiles = channels.at(plane, c, begin);
    float* to = sums + c * s.o;
    // Of two vectors of 8 channels 6, 6 and 4: eight sums would have to wait for one another.
    bool is_pair = LANES == 8 && c + 2 * LANES <= s.c;
    int64_t o = 0;
    for (; o + 2 * LANES <= s.o; o += 2 * LANES) {
      auto add = [&](auto block) { block(tiles, filters.at(plane, o, begin), count, room, s.o, to + o); };
      if (is_pair) add(add_block<0, 6, 2>), add(add_block<6, 6, 2>), add(add_block<12, 4, 2>);
      else add(add_block<0, HALF, 2>), add(add_block<HALF, HALF, 2>);
    }
    if (o < s.o) {
      add_block<0, ALL, 1>(tiles, filters.at(plane, o, begin), count, room, s.o, to + o);
      if (is_pair) add_block<ALL, ALL, 1>(tiles, filters.at(plane, o, begin), count, room, s.o, to + o);
    }
    if (is_pair) c += LANES;
  }
}

// Whether windows cover images; what they do not cover has no gradient.
inline bool covers(const Shape& s) { return s.y + 2 - s.top >= s.h && s.x + 2 - s.left >= s.w; }

template <int M>
void add_gradient_by(Images images, Gradient gradient, const Shape& s, float* sums, const float* flipped,
                     float* to_images) {
  constexpr auto& FLIPPED = Transform<M>::FLIPPED;
  if (flipped && !covers(s)) std::fill_n(to_images, s.b * s.image(), 0.f);
  in_groups<M>(s, [&](const Group<M>& group, Planes channels, Planes filters) {
    spread_images(images, s, group, channels);
    spread_gradient(gradient, s, group, filters);
    for (int64_t plane = 0; plane < planes(s); ++plane) {
      int64_t begin = group.begin(plane), count = group.end(plane) - begin;
      add_plane(channels, filters, s, plane, begin, count, sums + plane * s.c * s.o);
      if (!flipped) continue;
      const float* kernel = flipped + ((M + 2) * FLIPPED[plane / (M + 2)] + FLIPPED[plane % (M + 2)]) * s.c * s.o;
      in_blocks(s.c, [&](int64_t channel, auto f) {  // in place of the images' plane, which nothing reads any more
        multiply<f.value>(filters.at(plane, 0, begin), kernel + channel * s.o, s.o, count, filters.room,
                          channels.at(plane, channel, begin));
      });
    }
    if (flipped) gather_images(channels, s, group, to_images);
  });
}

void add_gradient(Images images, Gradient gradient, const Shape& s, float* sums, const float* flipped,
                  float* to_images) {
  (s.tile == 4 ? add_gradient_by<4> : add_gradient_by<2>)(images, gradient, s, sums, flipped, to_images);
}

}  // namespace minimal
