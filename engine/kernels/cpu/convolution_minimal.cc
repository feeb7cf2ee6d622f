// What minimal.h declares. A file of its own, so that it is compiled beside the others of the library.

#include "minimal.h"

#include "pools.h"
#include "shapes.h"
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

// Tiles that are multiplied together. A tile that maps end in has one row or one column of sums, and those need nothing
// of the last planes of that direction. So tiles are put in such an order that each plane needs some side by side:
// those that end below, those that are whole, those that end at the right, those that do both.
class Group {
 public:
  Group(const Shape& s, int64_t first, int64_t count) : s_(s), first_(first), count_(count) {
    int64_t tiles[4] = {};
    for_runs([&](const Run& run) { tiles[kind(run.row, run.column)] += run.count; });
    for (int n = 0; n < 4; ++n) begin_[n + 1] = begin_[n] + tiles[n];
  }

  // Where the tiles that a plane needs begin, and where they end.
  int64_t begin(int64_t plane) const { return begin_[plane / 4 == 3 ? 1 : 0]; }
  int64_t end(int64_t plane) const { return begin_[plane % 4 == 3 ? 2 : plane / 4 == 3 ? 3 : 4]; }

  template <typename Work>
  void for_runs(const Work& work) const {
    int64_t wide = tiles_wide(s_), whole = s_.x / 2, next[4];
    std::copy_n(begin_, 4, next);
    for (int64_t tile = first_, count; tile < first_ + count_; tile += count) {
      int64_t rows = tile / wide, row = 2 * (rows % tiles_high(s_)), column = tile % wide;
      count = std::min(first_ + count_ - tile, (column < whole ? whole : wide) - column);
      int64_t& place = next[kind(row, 2 * column)];
      work(Run{rows / tiles_high(s_), row, 2 * column, count, place});
      place += count;
    }
  }

  // Calls work(place, image, row, column) for all tiles.
  template <typename Work>
  void for_tiles(const Work& work) const {
    for_runs([&](const Run& run) {
      for (int64_t n = 0; n < run.count; ++n) work(run.place + n, run.image, run.row, run.column + 2 * n);
    });
  }

 private:
  const Shape& s_;
  int64_t first_, count_, begin_[5] = {};

  int kind(int64_t row, int64_t column) const {
    bool is_high = row + 1 < s_.y, is_wide = column + 1 < s_.x;
    return is_wide ? is_high : 3 - is_high;
  }
};

// The tiles of images in groups that stay in the second cache: calls work(group, channels' planes, filters' planes).
// There is room for as many more as a block of tiles may reach beyond.
template <typename Work>
void in_groups(const Shape& s, const Work& work) {
  constexpr int64_t CACHED = 49152;  // floats
  static thread_local Floats channels, filters;
  int64_t block = tiles_of_block(std::min<int64_t>(4, s.o / LANES)), all = s.b * tiles_high(s) * tiles_wide(s);
  int64_t most = std::min(all, std::max<int64_t>(48 / block, CACHED / (PLANES * (s.c + s.o) * block)) * block);
  // Planes that lie a multiple of a page apart would be in each other's place in the first cache.
  auto planes = [most](Floats& memory, int64_t depth) {
    int64_t room = most + REGISTERS, size = room * depth, pitch = size % 1024 ? size : size + LANES;
    return Planes{memory.of(PLANES * pitch), room, pitch};
  };
  Planes of_channels = planes(channels, s.c), of_filters = planes(filters, s.o);
  for (int64_t first = 0; first < all; first += most)
    work(Group(s, first, std::min(most, all - first)), of_channels, of_filters);
}

// B' d B of Lavin and Gray for tiles of images with zeros around them. What a tile at the edge of a map sees beyond it
// changes no value that is kept.
inline void spread_images(Images images, const Shape& s, const Group& group, Planes to) {
  static thread_local Floats memory;
  float* zeros = memory.of(images.w * s.c);
  std::fill_n(zeros, images.w * s.c, 0.f);
  group.for_runs([&](const Run& run) {
    for (int64_t c = 0; c < s.c; c += LANES) {
      const float* rows[4];
      for (int i = 0; i < 4; ++i) {
        int64_t row = run.row + i - images.top;
        rows[i] = (row < 0 || row >= images.h ? zeros : images.from(run.image) + row * images.pitch) + c;
      }
      Vector d[4][4];
      auto read = [&](int j, int64_t x) {
        Vector v0 = {}, v1 = {}, v2 = {}, v3 = {};
        if (int64_t at = (x - images.left) * s.c; x >= images.left && x < images.left + images.w)
          v0 = load(rows[0] + at), v1 = load(rows[1] + at), v2 = load(rows[2] + at), v3 = load(rows[3] + at);
        d[0][j] = v0 - v2, d[1][j] = v1 + v2, d[2][j] = v2 - v1, d[3][j] = v1 - v3;
      };
      read(0, run.column), read(1, run.column + 1);
      for (int64_t n = 0; n < run.count; ++n) {
        read(2, run.column + 2 * n + 2), read(3, run.column + 2 * n + 3);
        float* at = to.at(0, c, run.place + n);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i, at += 4 * to.pitch) {
          store(at, d[i][0] - d[i][2]);
          store(at + to.pitch, d[i][1] + d[i][2]);
          store(at + 2 * to.pitch, d[i][2] - d[i][1]);
          store(at + 3 * to.pitch, d[i][1] - d[i][3]);
          d[i][0] = d[i][2], d[i][1] = d[i][3];
        }
      }
    }
  });
}

// A' m A: the sums of tiles out of those of products, with the bias: work(image, row, column, o, sums [2][2]).
template <typename Work>
void gather(Planes from, const Shape& s, const Group& group, const float* bias, const Work& work) {
  group.for_tiles([&](int64_t n, int64_t image, int64_t row, int64_t column) {
    for (int64_t o = 0; o < s.o; o += LANES) {
      const float* at = from.at(0, o, n);
      int64_t step = from.pitch;
      Vector t[2][4], sums[2][2];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        Vector m0 = load(at + j * step), m1 = load(at + (4 + j) * step);
        Vector m2 = load(at + (8 + j) * step), m3 = load(at + (12 + j) * step);
        if (j == 1) m1 += load(bias + o);  // plane (1, 1), which A' m A adds once to each value of a tile
        t[0][j] = m0 + m1 + m2, t[1][j] = m1 - m2 - m3;
      }
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) sums[i][0] = t[i][0] + t[i][1] + t[i][2], sums[i][1] = t[i][1] - t[i][2] - t[i][3];
      work(image, row, column, o, sums);
    }
  });
}

// Their maps, or their relu.
inline void gather_maps(Planes from, const Shape& s, const Group& group, const float* bias, bool is_relu, float* maps) {
  gather(from, s, group, bias, [&](int64_t image, int64_t row, int64_t column, int64_t o, const Vector (&sums)[2][2]) {
    float* to = maps + image * s.map() + (row * s.x + column) * s.o + o;
    for (int i = 0; i < 2 && row + i < s.y; ++i)
      for (int j = 0; j < 2 && column + j < s.x; ++j)
        store(to + (i * s.x + j) * s.o, is_relu ? positive(sums[i][j]) : sums[i][j]);
  });
}

// The largest of each tile, which are the windows of a pool of 2x2.
template <bool HAS_WINNERS>
void gather_windows(Planes from, const Shape& s, const Group& group, const float* bias, bool is_relu, float* out,
                    uint8_t* winners) {
  gather(from, s, group, bias, [&](int64_t image, int64_t row, int64_t column, int64_t o, const Vector (&sums)[2][2]) {
    int64_t at = image * s.map() / 4 + (row * s.x / 4 + column / 2) * s.o + o;
    Largest<HAS_WINNERS> largest{sums[0][0]};
    largest.take(sums[0][1], 1), largest.take(sums[1][0], 2), largest.take(sums[1][1], 3);
    largest.put(is_relu, at, out, winners);
  });
}

// A g A': the gradients with respect to the maps of tiles.
inline void spread_gradient(Gradient gradient, const Shape& s, const Group& group, Planes to) {
  group.for_tiles([&](int64_t n, int64_t image, int64_t row, int64_t column) {
    const float *upper = gradient.from(image, row).values + column * s.o, *lower = upper + gradient.pitch;
    bool is_wide = column + 1 < s.x, is_high = row + 1 < s.y;
    for (int64_t o = 0; o < s.o; o += LANES) {
      Vector g[2][2] = {};
      g[0][0] = load(upper + o);
      if (is_wide) g[0][1] = load(upper + s.o + o);
      if (is_high) g[1][0] = load(lower + o);
      if (is_wide && is_high) g[1][1] = load(lower + s.o + o);
      Vector t[4][2];
      for (int j = 0; j < 2; ++j)
        t[0][j] = g[0][j], t[1][j] = g[0][j] + g[1][j], t[2][j] = g[0][j] - g[1][j], t[3][j] = -g[1][j];
      float* at = to.at(0, o, n);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i, at += 4 * to.pitch) {
        store(at, t[i][0]);
        store(at + to.pitch, t[i][0] + t[i][1]);
        store(at + 2 * to.pitch, t[i][0] - t[i][1]);
        store(at + 3 * to.pitch, -t[i][1]);
      }
    }
  });
}

void spread_kernel(const float* kernel, const Shape& s, int64_t first, int64_t count, float* to) {
  int64_t size = s.c * s.o;
  in_blocks(s.o, [&](int64_t filter, int f) {
    for (int64_t c = first; c < first + count; ++c)
      for (int64_t n = 0; n < f; ++n) {
        const float* from = kernel + c * s.o + filter + n * LANES;
        float* at = to + filter * s.c + (c * f + n) * LANES;
        Vector t[4][3];
        for (int j = 0; j < 3; ++j) {
          Vector k0 = load(from + j * size), k1 = load(from + (3 + j) * size), k2 = load(from + (6 + j) * size);
          t[0][j] = k0, t[1][j] = (k0 + k1 + k2) * .5f, t[2][j] = (k0 - k1 + k2) * .5f, t[3][j] = k2;
        }
        for (int i = 0; i < 4; ++i, at += 4 * size) {
          store(at, t[i][0]);
          store(at + size, (t[i][0] + t[i][1] + t[i][2]) * .5f);
          store(at + 2 * size, (t[i][0] - t[i][1] + t[i][2]) * .5f);
          store(at + 3 * size, t[i][2]);
        }
      }
  });
}

void gather_kernel(const float* sums, int64_t parts, int64_t size, const Shape& s, int64_t first, int64_t count,
                   float* kernel) {
  int64_t step = s.c * s.o;
  for (int64_t n = first; n < first + count; n += LANES) {
    Vector t[3][4];
    for (int j = 0; j < 4; ++j) {
      Vector m[4] = {};
      for (int64_t part = 0; part < parts; ++part)
        for (int i = 0; i < 4; ++i) m[i] += load(sums + part * size + (4 * i + j) * step + n);
      Vector even = (m[1] + m[2]) * .5f;
      t[0][j] = m[0] + even, t[1][j] = (m[1] - m[2]) * .5f, t[2][j] = even + m[3];
    }
    for (int i = 0; i < 3; ++i) {
      Vector even = (t[i][1] + t[i][2]) * .5f;
      float* at = kernel + 3 * i * step + n;
      store(at, t[i][0] + even), store(at + step, (t[i][1] - t[i][2]) * .5f), store(at + 2 * step, even + t[i][3]);
    }
  }
}

// Products of one plane for `P` tiles and `F` vectors of filters: sums over c channels.
template <int P, int F>
void multiply_block(const float* tiles, const float* kernel, int64_t c, int64_t room, float* out) {
  Vector sum[P][F] = {};
  for (int64_t first = 0; first < c; first += LANES, tiles += room * LANES, kernel += LANES * F * LANES) {
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

// In blocks of `P` tiles, or a sixth less where that computes fewer beyond the last.
template <int F>
void multiply(const float* tiles, const float* kernel, int64_t c, int64_t count, int64_t room, float* out) {
  constexpr int P = tiles_of_block(F), Q = P - (P + 5) / 6;
  auto computed = [count](int64_t block) { return (count + block - 1) / block * block; };
  if (computed(Q) < computed(P))
    for (int64_t n = 0; n < count; n += Q)
      multiply_block<Q, F>(tiles + n * LANES, kernel, c, room, out + n * LANES);
  else
    for (int64_t n = 0; n < count; n += P)
      multiply_block<P, F>(tiles + n * LANES, kernel, c, room, out + n * LANES);
}

// The sums of products of padded images with a spread kernel: gather(group, planes of filters), group by group.
template <typename Gather>
void multiply_planes(Images images, const float* spread, const Shape& s, const Gather& gather) {
  in_groups(s, [&](const Group& group, Planes channels, Planes filters) {
    spread_images(images, s, group, channels);
    for (int64_t plane = 0; plane < PLANES; ++plane) {
      int64_t begin = group.begin(plane), count = group.end(plane) - begin;
      in_blocks(s.o, [&](int64_t filter, auto f) {
        multiply<f.value>(channels.at(plane, 0, begin), spread + (plane * s.o + filter) * s.c, s.c, count,
                          channels.room, filters.at(plane, filter, begin));
      });
    }
    gather(group, filters);
  });
}

void convolve(Images images, const float* spread, const float* bias, const Shape& s, bool is_relu, float* out) {
  multiply_planes(images, spread, s,
                  [&](const Group& group, Planes sums) { gather_maps(sums, s, group, bias, is_relu, out); });
}

void convolve_and_pool(Images images, const float* spread, const float* bias, const Shape& s, bool is_relu,
                       float* out, uint8_t* winners) {
  auto gather = winners ? gather_windows<true> : gather_windows<false>;
  multiply_planes(images, spread, s,
                  [&](const Group& group, Planes sums) { gather(sums, s, group, bias, is_relu, out, winners); });
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
// is the same wherever a group ends: what lies in memory, then the tile before, then the tile.
inline void gather_images(Planes from, const Shape& s, const Group& group, float* images) {
  group.for_runs([&](const Run& run) {
    bool is_high = run.row + 1 < s.y, is_wide = run.column + 1 < s.x;  // else the last planes were not computed
    for (int64_t c = 0; c < s.c; c += LANES) {
      float* rows[4];
      for (int i = 0; i < 4; ++i) {
        int64_t row = run.row + i - s.top;
        rows[i] = row < 0 || row >= s.h ? nullptr : images + run.image * s.image() + row * s.w * s.c + c;
      }
      auto put = [&](int i, int64_t x, Vector before, Vector value, bool is_added) {
        int64_t column = x - s.left;
        if (!rows[i] || column < 0 || column >= s.w) return;
        float* to = rows[i] + column * s.c;
        store(to, (is_added ? load(to) + before : before) + value);
      };
      Vector before[4][2] = {};
      int64_t x = run.column;
      for (int64_t n = 0; n < run.count; ++n, x += 2) {
        const float* at = from.at(0, c, run.place + n);
        bool is_added = n == 0 && x > 0;
        Vector d[4][4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          Vector v[4] = {};
          if (j < 3 || is_wide) {
            for (int i = 0; i < 3; ++i) v[i] = load(at + (4 * i + j) * from.pitch);
            if (is_high) v[3] = load(at + (12 + j) * from.pitch);
          }
          d[0][j] = v[0], d[1][j] = v[1] - v[2] + v[3], d[2][j] = v[1] + v[2] - v[0], d[3][j] = -v[3];
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          bool is_second = is_added || (i < 2 && run.row > 0);
          put(i, x, before[i][0], d[i][0], is_second);
          put(i, x + 1, before[i][1], d[i][1] - d[i][2] + d[i][3], is_second);
          before[i][0] = d[i][1] + d[i][2] - d[i][0], before[i][1] = -d[i][3];
        }
      }
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
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

// Whether tiles cover images; what they do not cover has no gradient.
inline bool covers(const Shape& s) {
  return 2 * tiles_high(s) + 2 - s.top >= s.h && 2 * tiles_wide(s) + 2 - s.left >= s.w;
}

void add_gradient(Images images, Gradient gradient, const Shape& s, float* sums, const float* flipped,
                  float* to_images) {
  constexpr int64_t BACK[4] = {3, 1, 2, 0};  // the planes of a kernel from those of the flipped one
  if (flipped && !covers(s)) std::fill_n(to_images, s.b * s.image(), 0.f);
  in_groups(s, [&](const Group& group, Planes channels, Planes filters) {
    spread_images(images, s, group, channels);
    spread_gradient(gradient, s, group, filters);
    for (int64_t plane = 0; plane < PLANES; ++plane) {
      int64_t begin = group.begin(plane), count = group.end(plane) - begin;
      add_plane(channels, filters, s, plane, begin, count, sums + plane * s.c * s.o);
      if (!flipped) continue;
      const float* kernel = flipped + (4 * BACK[plane / 4] + BACK[plane % 4]) * s.c * s.o;
      in_blocks(s.c, [&](int64_t channel, auto f) {  // in place of the images' plane, which nothing reads any more
        multiply<f.value>(filters.at(plane, 0, begin), kernel + channel * s.o, s.o, count, filters.room,
                          channels.at(plane, channel, begin));
      });
    }
    if (flipped) gather_images(channels, s, group, to_images);
  });
}

}  // namespace minimal
