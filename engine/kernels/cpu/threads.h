// Work that XLA's threads share.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>

#include "xla/ffi/api/ffi.h"

inline int64_t num_threads(xla::ffi::ThreadPool threads) { return std::max<int64_t>(1, threads.num_threads()); }

// Calls work(n) for every n below count, on this thread and those of the pool. What a thread of the pool has not begun
// when all is done, it never begins: the caller needs none of them. Work must not throw.
template <typename Work>
void parallel(xla::ffi::ThreadPool threads, int64_t count, const Work& work) {
  struct Progress {
    std::atomic<int64_t> next{0}, done{0};
  };
  auto progress = std::make_shared<Progress>();
  auto drain = [progress, count, &work] {
    for (int64_t n; (n = progress->next.fetch_add(1)) < count;) {
      work(n);
      progress->done.fetch_add(1, std::memory_order_release);
    }
  };
  int64_t helpers = std::min(num_threads(threads), count) - 1;
  for (int64_t n = 0; n < helpers; ++n) threads.Schedule(std::function<void()>(drain));
  drain();
  while (progress->done.load(std::memory_order_acquire) < count) std::this_thread::yield();
}

// As many rows of each image at once that all threads have work, however few images there are. A multiple of 4, where
// there are more: what is computed in tiles of that many rows is then the same however the rows are shared.
inline int64_t rows_at_once(xla::ffi::ThreadPool threads, int64_t images, int64_t rows) {
  int64_t pieces = 4 * num_threads(threads);
  return images >= pieces ? rows : std::min(rows, (rows * images / pieces / 4 + 1) * 4);
}
