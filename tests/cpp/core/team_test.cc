#include "core/team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

namespace edgequant {
namespace {

class TeamTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { SetNumThreads(GetParam()); }
  void TearDown() override { SetNumThreads(0); }
};

// Each loop reads what the one before has written; threads come late now and then.
TEST_P(TeamTest, LoopsFollowOneAnother) {
  for (const size_t n : {size_t{1}, size_t{2}, size_t{3}, size_t{17}}) {
    std::vector<size_t> a(n, 1), b(n, 0);
    std::atomic<int> entered{0};
    constexpr size_t kLoops = 200;
    WithTeam([&](Team& team) {
      if (entered++ % 2) std::this_thread::sleep_for(std::chrono::microseconds(300));
      for (size_t k = 0; k < kLoops; ++k) {
        team.For(n, [](size_t) {}, [&](size_t i) { b[i] = a[n - 1 - i] + 1; });
        team.ForRanges(n, [](size_t) {}, [&](size_t i) { a[i] = b[n - 1 - i]; });
        team.For(0, [](size_t) {}, [&](size_t) { ADD_FAILURE(); });
      }
    });
    for (const size_t v : a) EXPECT_EQ(v, kLoops + 1);
  }
}

TEST_P(TeamTest, PreparesOncePerThreadAndLoopWithTheFirstTask) {
  std::atomic<int> prepared{0}, done{0};
  WithTeam([&](Team& team) {
    for (int k = 0; k < 50; ++k) {
      thread_local size_t first;
      thread_local bool fresh;
      team.For(8, [&](size_t i) { first = i, fresh = true, ++prepared; }, [&](size_t i) {
        if (fresh) { EXPECT_EQ(i, first); }
        fresh = false;
        ++done;
      });
    }
  });
  EXPECT_EQ(done, 400);
  EXPECT_GE(prepared, 50);
  EXPECT_LE(prepared, 50 * GetParam());
}

TEST_P(TeamTest, AnExceptionEndsAllLoops) {
  for (int k = 0; k < 20; ++k) {
    std::atomic<int> later{0};
    const auto run = [&] {
      WithTeam([&](Team& team) {
        team.For(10, [](size_t) {}, [](size_t i) { if (i == 5) throw std::runtime_error("5"); });
        team.For(10, [](size_t) {}, [&](size_t) { ++later; });
      });
    };
    EXPECT_THROW(run(), std::runtime_error);
    EXPECT_EQ(later, 0);
  }
}

TEST_P(TeamTest, WorksInsideOfALoop) {
  std::atomic<int> count{0};
  ParallelFor(4, 1, [&](size_t, size_t) {
    WithTeam([&](Team& team) { team.For(4, [](size_t) {}, [&](size_t) { ++count; }); });
  });
  EXPECT_EQ(count, 16);
}

INSTANTIATE_TEST_SUITE_P(Threads, TeamTest, testing::Values(1, 2, 5));

}  // namespace
}  // namespace edgequant
