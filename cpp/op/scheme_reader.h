// Rows of run-time formats as a panel has them: where columns go, scales, and what codes become.
#pragma once
#include <string.h>

#include <type_traits>
#include <vector>

#include "op/scheme_layout.h"

namespace edgequant {

// The largest magnitude, as a number.
float MostOf(const float* values, size_t n);

// Where the columns of the format are in the panel.
struct RowPlaces {
  // `groups`, unless null, names that of each column, and the panel's may become smaller.
  RowPlaces(const SchemeView& q, const int32_t* groups, int* panel_group);

  size_t cols, unit;              // of the panel: columns, and those of a group
  std::vector<uint32_t> order;    // if they are sorted: the format's columns; q.cols to fill a group up
  std::vector<uint32_t> source;   // and the codes that go there; what fills a group up repeats one of it
  std::vector<size_t> group_of;   // of each group of the panel
};

// Scales and minima of the rows, and codes as the panel has them.
class RowReader {
 public:
  RowReader(const SchemeView& q, const RowRecipe& recipe, const RowPlaces& places)
      : q_(q),
        recipe_(recipe),
        scales_(q),
        groups_(q.scheme->GroupsOf(q.cols)),
        cols_(places.cols),
        panel_group_(places.unit),
        group_of_(places.group_of),
        scale(groups_),
        shift(groups_),
        entries_(recipe.own_tables ? groups_ * size_t(q.scheme->codes) : 0),
        numbers_(recipe.numbers.empty() ? 0 : places.cols) {}

  // scale and shift of a row; the scale of a table is its largest magnitude, or the step between its lowest entry, the
  // shift, and the highest.
  void Read(size_t row);
  // Codes of the row that was read, from those of the format, and by what each group of the panel multiplies its scale.
  void Recode(const uint8_t* codes, uint8_t* out, float* factor);

 private:
  void Numbers(const uint8_t* codes);  // numbers_, those of the codes
  template <class T>
  void LookUp(const T* table, const uint8_t* codes, T* out) const;
  void RecodeTables(const uint8_t* codes, uint8_t* out) const;

  const SchemeView& q_;
  const RowRecipe& recipe_;
  ScaleReader scales_;
  size_t groups_, cols_, panel_group_;
  const std::vector<size_t>& group_of_;

 public:
  std::vector<float> scale, shift;

 private:
  std::vector<float> entries_, numbers_;
};

}  // namespace edgequant
