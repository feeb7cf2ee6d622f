// What minimal.h declares. A file of its own, so that it is compiled beside the others of the library.

#include "minimal.h"

#include "pools.h"
#include "shapes.h"
#include "transforms.h"
#include "vectors.h"

namespace minimal {

// Tiles that are multiplied at once with so many vectors of filters.
constexpr int tiles_of_block(int vectors) { return REGISTERS / vectors; }

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
  int64_t block = tiles_of_block(std::min<int64_t>(4, s.o / LANES)), all = s.b * tiles_high(s) * tiles_wide(s);
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

// B' d B of Lavin and Gray for tiles of images with zeros around them. What a tile at the edge of a map sees beyond it
// changes no value that is kept, but for rounding.
template <int M>
inline void spread_images(Images images, const Shape& s, const Group<M>& group, Planes to) {
  constexpr int N = M + 2;
  static thread_local Floats memory;
  float* zeros = memory.of(images.w * s.c);
  std::fill_n(zeros, images.w * s.c, 0.f);
  group.for_runs([&](const Run& run) {
    for (int64_t c = 0; c < s.c; c += LANES) {
      const float* rows[N];
      for (int i = 0; i < N; ++i) {
        int64_t row = run.row + i - images.top;
        rows[i] = (row < 0 || row >= images.h ? zeros : images.from(run.image) + row * images.pitch) + c;
      }
      Vector d[N][N];
      auto read = [&](int j, int64_t x) {
        Vector v[N] = {}, turned[N];
        if (int64_t at = (x - images.left) * s.c; x >= images.left && x < images.left + images.w)
#pragma GCC unroll 6
          for (int i = 0; i < N; ++i) v[i] = load(rows[i] + at);
        Transform<M>::image(v, turned);
#pragma GCC unroll 6
        for (int i = 0; i < N; ++i) d[i][j] = turned[i];
      };
      read(0, run.column), read(1, run.column + 1);
      for (int64_t n = 0; n < run.count; ++n) {
#pragma GCC unroll 4
        for (int j = 2; j < N; ++j) read(j, run.column + M * n + j);
        float* at = to.at(0, c, run.place + n);
#pragma GCC unroll 6
        for (int i = 0; i < N; ++i, at += N * to.pitch) {
          Vector turned[N];
          Transform<M>::image(d[i], turned);
#pragma GCC unroll 6
          for (int j = 0; j < N; ++j) store(at + j * to.pitch, turned[j]);
          d[i][0] = d[i][M], d[i][1] = d[i][M + 1];
        }
      }
    }
  });
}

// A' m A: the sums of tiles out of those of products, with the bias: work(image, row, column, o, sums [M][M]).
template <int M, typename Work>
void gather(Planes from, const Shape& s, const Group<M>& group, const float* bias, const Work& work) {
  constexpr int N = M + 2;
  group.for_tiles([&](int64_t n, int64_t image, int64_t row, int64_t column) {
    for (int64_t o = 0; o < s.o; o += LANES) {
      const float* at = from.at(0, o, n);
      Vector t[M][N], sums[M][M], bias_of_o = load(bias + o);
#pragma GCC unroll 6
      for (int j = 0; j < N; ++j) {
        Vector m[N], turned[M];
#pragma GCC unroll 6
        for (int i = 0; i < N; ++i) m[i] = load(at + (N * i + j) * from.pitch);
        // A' m A adds plane (1, 1) once to each value of a small tile.
        if (M == 2 && j == 1) m[1] += bias_of_o;
        Transform<M>::sums(m, turned);
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i) t[i][j] = turned[i];
      }
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) {
        Transform<M>::sums(t[i], sums[i]);
        if (M > 2)
#pragma GCC unroll 4
          for (int j = 0; j < M; ++j) sums[i][j] += bias_of_o;
      }
      work(image, row, column, o, sums);
    }
  });
}

// Their maps, or their relu.
template <int M>
void gather_maps(Planes from, const Shape& s, const Group<M>& group, const float* bias, bool is_relu, float* maps) {
  gather(from, s, group, bias, [&](int64_t image, int64_t row, int64_t column, int64_t o, const Vector (&sums)[M][M]) {
    float* to = maps + image * s.map() + (row * s.x + column) * s.o + o;
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < M; ++j)
        if (row + i < s.y && column + j < s.x)
          store(to + (i * s.x + j) * s.o, is_relu ? positive(sums[i][j]) : sums[i][j]);
  });
}

// The largest of each 2x2 of a tile, which are the windows of a pool.
template <int M, bool HAS_WINNERS>
void gather_windows(Planes from, const Shape& s, const Group<M>& group, const float* bias, bool is_relu, float* out,
                    uint8_t* winners) {
  gather(from, s, group, bias, [&](int64_t image, int64_t row, int64_t column, int64_t o, const Vector (&sums)[M][M]) {
#pragma GCC unroll 2
    for (int i = 0; i < M; i += 2)
#pragma GCC unroll 2
      for (int j = 0; j < M; j += 2) {
        if (row + i >= s.y || column + j >= s.x) continue;
        int64_t at = image * s.map() / 4 + ((row + i) * s.x / 4 + (column + j) / 2) * s.o + o;
        Largest<HAS_WINNERS> largest{sums[i][j]};
        largest.take(sums[i][j + 1], 1), largest.take(sums[i + 1][j], 2), largest.take(sums[i + 1][j + 1], 3);
        largest.put(is_relu, at, out, winners);
      }
  });
}

// A g A': the gradients with respect to the maps of tiles.
template <int M>
void spread_gradient(Gradient gradient, const Shape& s, const Group<M>& group, Planes to) {
  constexpr int N = M + 2;
  group.for_tiles([&](int64_t n, int64_t image, int64_t row, int64_t column) {
    const float* from = gradient.from(image, row).values + column * s.o;
    for (int64_t o = 0; o < s.o; o += LANES) {
      Vector t[N][M];
#pragma GCC unroll 4
      for (int j = 0; j < M; ++j) {
        Vector g[M] = {}, turned[N];
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i)
          if (row + i < s.y && column + j < s.x) g[i] = load(from + i * gradient.pitch + j * s.o + o);
        Transform<M>::to_sums(g, turned);
#pragma GCC unroll 6
        for (int i = 0; i < N; ++i) t[i][j] = turned[i];
      }
      float* at = to.at(0, o, n);
#pragma GCC unroll 6
      for (int i = 0; i < N; ++i, at += N * to.pitch) {
        Vector turned[N];
        Transform<M>::to_sums(t[i], turned);
#pragma GCC unroll 6
        for (int j = 0; j < N; ++j) store(at + j * to.pitch, turned[j]);
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

// Adds to sums [c][o] of one plane for `T` channels and `F` vectors of filters.
template <int T, int F>
void add_block(const float* tiles, const float* gradient, int64_t count, int64_t room, int64_t o, float* sums) {
  Vector sum[T][F];
  for (int t = 0; t < T; ++t)
    for (int f = 0; f < F; ++f) sum[t][f] = load(sums + t * o + f * LANES);
  for (int64_t n = 0; n < count; ++n, tiles += LANES, gradient += LANES) {
    Vector g[F];
#pragma GCC unroll 2
    for (int f = 0; f < F; ++f) g[f] = load(gradient + f * room * LANES);
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 2
      for (int f = 0; f < F; ++f) sum[t][f] += tiles[t] * g[f];
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
  int64_t width = std::min(s.w, s.x + 2 - s.left);
  group.for_runs([&](const Run& run) {
    bool is_high = run.row + M <= s.y, is_wide = run.column + M <= s.x;  // else the last planes were not computed
    for (int64_t c = 0; c < s.c; c += LANES) {
      float* rows[N];
      for (int i = 0; i < N; ++i) {
        int64_t row = run.row + i - s.top;
        bool is_inside = row >= 0 && row < s.h && run.row + i < s.y + 2;
        rows[i] = is_inside ? images + run.image * s.image() + row * s.w * s.c + c : nullptr;
      }
      auto put = [&](int i, int64_t x, Vector before, Vector value, bool is_added) {
        int64_t column = x - s.left;
        if (!rows[i] || column < 0 || column >= width) return;
        float* to = rows[i] + column * s.c;
        store(to, (is_added ? load(to) + before : before) + value);
      };
      Vector before[N][2] = {};
      int64_t x = run.column;
      for (int64_t n = 0; n < run.count; ++n, x += M) {
        const float* at = from.at(0, c, run.place + n);
        bool is_added = n == 0 && x > 0;
        Vector d[N][N];
#pragma GCC unroll 6
        for (int j = 0; j < N; ++j) {
          Vector v[N] = {}, turned[N];
          if (j <= M || is_wide) {
#pragma GCC unroll 6
            for (int i = 0; i <= M; ++i) v[i] = load(at + (N * i + j) * from.pitch);
            if (is_high) v[M + 1] = load(at + (N * (M + 1) + j) * from.pitch);
          }
          Transform<M>::to_image(v, turned);
#pragma GCC unroll 6
          for (int i = 0; i < N; ++i) d[i][j] = turned[i];
        }
#pragma GCC unroll 6
        for (int i = 0; i < N; ++i) {
          bool is_below = i < 2 && run.row > 0;
          Vector turned[N];
          Transform<M>::to_image(d[i], turned);
          put(i, x, before[i][0], turned[0], is_added || is_below);
          put(i, x + 1, before[i][1], turned[1], is_added || is_below);
#pragma GCC unroll 2
          for (int j = 2; j < M; ++j) put(i, x + j, Vector{}, turned[j], is_below);
          before[i][0] = turned[M], before[i][1] = turned[M + 1];
        }
      }
#pragma GCC unroll 6
      for (int i = 0; i < N; ++i)
        for (int j = 0; j < 2; ++j) put(i, x + j, before[i][j], Vector{}, i < 2 && run.row > 0);
    }
  });
}

// Adds the products of one plane to sums [c][o].
inline void add_plane(Planes channels, Planes filters, const Shape& s, int64_t plane, int64_t begin, int64_t count,
                      float* sums) {
  constexpr int HALF = LANES / 2;
  for (int64_t c = 0; c < s.c; c += LANES) {
    const float* tiles = channels.at(plane, c, begin);
    float* to = sums + c * s.o;
    int64_t o = 0, room = channels.room;
    for (; o + 2 * LANES <= s.o; o += 2 * LANES)
      for (int half = 0; half < LANES; half += HALF)
        add_block<HALF, 2>(tiles + half, filters.at(plane, o, begin), count, room, s.o, to + half * s.o + o);
    if (o < s.o) add_block<LANES, 1>(tiles, filters.at(plane, o, begin), count, room, s.o, to + o);
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
