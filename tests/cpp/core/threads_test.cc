#include "core/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

namespace edgequant {
namespace {

TEST(ParallelFor, CoversEveryIndexOnceWithGrainAlignedRanges) {
  for (int threads : {1, 2, 5}) {
    SetNumThreads(threads);
    for (size_t n : {size_t{0}, size_t{1}, size_t{7}, size_t{1000}}) {
      std::vector<std::atomic<int>> seen(n);
      ParallelFor(n, 8, [&](size_t a, size_t b) {
        EXPECT_EQ(a % 8, 0u);
        EXPECT_LE(b - a, 8u);
        for (size_t i = a; i < b; ++i) ++seen[i];
      });
      for (auto& s : seen) EXPECT_EQ(s, 1);
    }
  }
  SetNumThreads(0);
}

TEST(ParallelFor, RethrowsAndStaysUsable) {
  SetNumThreads(3);
  for (int k = 0; k < 20; ++k) {
    EXPECT_THROW(ParallelFor(100, 1,
                             [](size_t a, size_t) {
                               if (a == 37) throw std::runtime_error("37");
                             }),
                 std::runtime_error);
  }
  std::atomic<int> sum{0};
  ParallelFor(100, 1, [&](size_t a, size_t) { sum += int(a); });
  EXPECT_EQ(sum, 4950);
  SetNumThreads(0);
}

TEST(ParallelFor, NestedAndConcurrentCallsEnd) {
  SetNumThreads(2);
  std::atomic<int> count{0};
  const auto outer = [&] {
    for (int k = 0; k < 50; ++k)
      ParallelFor(4, 1, [&](size_t, size_t) { ParallelFor(4, 1, [&](size_t, size_t) { ++count; }); });
  };
  std::thread a(outer), b(outer);
  a.join();
  b.join();
  EXPECT_EQ(count, 2 * 50 * 16);
  SetNumThreads(0);
}

// An OpenMP library of two threads, as far as ParallelFor uses one.
std::atomic<int> borrowed{0};
void TwoThreads(void (*body)(void*), void* data, unsigned threads, unsigned) {
  EXPECT_EQ(threads, 2u);
  ++borrowed;
  std::thread other(body, data);
  body(data);
  other.join();
}

TEST(ParallelFor, RunsOnAnOpenMpLibraryOfAsManyThreads) {
  ShareOpenMp(&TwoThreads, [] { return 2; });
  for (int threads : {2, 3, 1}) {
    SetNumThreads(threads);
    std::atomic<int> sum{0};
    ParallelFor(100, 1, [&](size_t a, size_t) { ParallelFor(2, 1, [&](size_t, size_t) { sum += int(a); }); });
    EXPECT_EQ(sum, 2 * 4950);
    EXPECT_THROW(ParallelFor(9, 1, [](size_t, size_t) { throw std::runtime_error("x"); }), std::runtime_error);
  }
  EXPECT_EQ(borrowed, 2);  // only the loops of two threads, and none from inside of another
  ShareOpenMp(nullptr, nullptr);
  SetNumThreads(0);
}

}  // namespace
}  // namespace edgequant
