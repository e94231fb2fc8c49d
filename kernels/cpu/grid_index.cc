// Builds the search tables of a grid.
#include <algorithm>
#include <map>
#include <set>

#include "core/error.h"
#include "format/decode.h"
#include "kernels/cpu/grid_search.h"

namespace edgequant {
namespace {

using Sets = std::vector<std::set<uint16_t>>;

// Replaces the pair that most sets share by one new member, again and again, while that saves work: a merge costs
// two loads and a store.
std::vector<GridIndex::Merge> MergePairs(Sets& sets, int half) {
  constexpr int kLeast = 5;
  std::vector<GridIndex::Merge> merges;
  const int limit = 4 * half;
  std::vector<int> count(size_t(limit) * limit);
  const auto add = [&](const std::set<uint16_t>& s, int by) {
    for (auto i = s.begin(); i != s.end(); ++i)
      for (auto j = std::next(i); j != s.end(); ++j) count[size_t(*i) * limit + *j] += by;
  };
  for (const auto& s : sets) add(s, 1);
  while (half + int(merges.size()) < limit) {
    const auto best = std::max_element(count.begin(), count.end());
    if (*best < kLeast) break;
    const uint16_t a = uint16_t((best - count.begin()) / limit), b = uint16_t((best - count.begin()) % limit);
    const uint16_t merged = uint16_t(half + merges.size());
    merges.push_back({a, b});
    for (auto& s : sets) {
      if (!s.count(a) || !s.count(b)) continue;
      add(s, -1);
      s.erase(a);
      s.erase(b);
      s.insert(merged);
      add(s, 1);
    }
  }
  return merges;
}

}  // namespace

GridIndex::GridIndex(const GridTable& grid) : dim(grid.dim), rows(grid.rows) {
  std::set<int> distinct;
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < dim; ++i) distinct.insert(GridValue(grid, r, i));
  levels = int(distinct.size());
  if (!(dim == 8 && levels == 3) && !(dim == 4 && levels == 8))
    Fail("no search for grids of ", dim, " weights and ", levels, " levels");
  std::copy(distinct.begin(), distinct.end(), value);
  quarter = dim == 8 ? levels * levels : levels;
  half = quarter * quarter;

  word.assign(size_t(half), 0);
  row.assign(size_t(half) * half, -1);
  Sets sets(half);
  double square = 0;
  for (int r = 0; r < rows; ++r) {
    int at[2] = {0, 0};
    uint32_t bytes[2] = {0, 0};
    for (int i = dim - 1; i >= 0; --i) {
      const int v = GridValue(grid, r, i), side = i >= dim / 2;
      at[side] = at[side] * levels + int(std::distance(distinct.begin(), distinct.find(v)));
      bytes[side] = bytes[side] << 8 | uint8_t(v);
      square += v * v;
    }
    for (int side = 0; side < 2; ++side) word[at[side]] = int32_t(bytes[side]);
    row[at[0] * half + at[1]] = r;
    sets[at[0]].insert(uint16_t(at[1]));
  }
  mean_square = float(square / (double(rows) * dim));
  merges = MergePairs(sets, half);

  std::vector<int> order;
  for (int h = 0; h < half; ++h)
    if (!sets[h].empty()) order.push_back(h);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return sets[a].size() < sets[b].size(); });
  for (int h : order) {
    if (classes.empty() || classes.back().length != sets[h].size()) classes.push_back({uint16_t(sets[h].size()), 0});
    ++classes.back().count;
    runs.push_back({uint8_t(h % quarter), uint8_t(h / quarter), uint16_t(h), uint16_t(members.size())});
    for (int m : sets[h]) members.push_back(uint16_t(m * kRowBytes));
  }
  for (Merge& m : merges) m = {uint16_t(m.a * kRowBytes), uint16_t(m.b * kRowBytes)};
}

}  // namespace edgequant
