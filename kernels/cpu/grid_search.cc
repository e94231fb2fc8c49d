// Compiles the grid search for every target and chooses one at run time.
#include "kernels/cpu/grid_search.h"

#include <memory>
#include <new>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/grid_search.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/grid_search-inl.h"

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(SearchGridTargeted);

void SearchGrid(const GridProblem& problem, const float* x, size_t blocks, const float* importance, size_t first_column,
                size_t cols, GridBlock* out) {
  const auto work = std::make_unique<GridWork>();
  const size_t rows = size_t(problem.index->half) + problem.index->merges.size();
  struct alignas(64) Line {
    uint16_t v[kGridLanes];
  };
  const auto lines =
      std::make_unique<Line[]>(3 * rows);  // a row of 16-bit costs and one of half as many 32-bit keys are alike
  work->table = lines[0].v;
  for (int k = 0; k < 2; ++k) work->keys[k] = reinterpret_cast<uint32_t*>(lines[(k + 1) * rows].v);
  HWY_DYNAMIC_DISPATCH(SearchGridTargeted)(problem, x, blocks, importance, first_column, cols, *work, out);
}

}  // namespace edgequant
#endif
