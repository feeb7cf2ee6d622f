// In place of XLA's header, where kernels run alone: a pool without threads.

#pragma once

#include <cstdint>
#include <functional>

namespace xla::ffi {
struct ThreadPool {
  int64_t num_threads() const { return 1; }
  void Schedule(std::function<void()>) {}
};
}  // namespace xla::ffi
