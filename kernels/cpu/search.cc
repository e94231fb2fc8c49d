#include "kernels/cpu/search.h"

namespace edgequant {

// One function per file of search_*.cc, which compile in parallel.
void SearchTwoLevel(FormatId id, const SearchJob& job);
void SearchTwoLevelMin(FormatId id, const SearchJob& job);
void SearchOneLevelWhole(FormatId id, const SearchJob& job);
void SearchOneLevelTable(FormatId id, const SearchJob& job);

namespace {

using Search = void (*)(FormatId, const SearchJob&);
Search SearchOf(FormatId id) {
  const Block& b = BlockOf(id);
  if (b.n == 1 || b.map.kind == MapKind::kGrid) return nullptr;
  const bool affine = b.offset.type != Number::kNone, table = b.map.kind == MapKind::kTable;
  if (b.scale.sub_group != 0) return affine ? SearchTwoLevelMin : SearchTwoLevel;
  return table ? SearchOneLevelTable : SearchOneLevelWhole;
}

}  // namespace

bool CanSearch(FormatId id) { return SearchOf(id) != nullptr; }
void SearchRows(FormatId id, const SearchJob& job) { SearchOf(id)(id, job); }

}  // namespace edgequant
