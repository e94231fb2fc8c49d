// What the encoders of run-time formats share: the problem, and where results go.
#pragma once
#include <algorithm>
#include <functional>
#include <optional>
#include <vector>

#include "algo/scheme.h"
#include "kernels/cpu/codebook.h"
#include "kernels/cpu/scheme_search.h"
#include "op/plane_tiles.h"

namespace edgequant {

struct Encoder {
  const Scheme& s;
  const float* x;
  size_t rows, cols;
  const float* importance;   // of the columns, or null
  Effort effort;
  std::vector<float> table;  // of a table or codebook, learned or not
  CodeValues values;
  SchemeTuning tuning, lower[2];
  SchemeSearch search;
  bool rule = false;         // the reference's encoder alone
  float limit = 0;           // the largest magnitude whose group has a scale

  Encoder(const Scheme& scheme, const float* weights, size_t n, size_t k, const float* columns, Effort how)
      : s(scheme), x(weights), rows(n), cols(k), importance(columns), effort(how) {}
  Encoder(const Encoder&) = delete;  // `search` points into it

  // Looks for scales with this table from now on.
  void UseTable(const std::vector<float>& t);

  size_t group() const { return s.GroupCols(cols); }
  size_t groups() const { return s.GroupsOf(cols); }
};

constexpr float kLargestWeight = 0x1p126f;  // leaves room for a minimum and a range over it

// Throws for NaN, infinity, and magnitudes above the limit, in rows x cols numbers, the first of which belong to
// `first`.
void CheckBelow(const Scheme& s, const float* x, size_t first, size_t rows, size_t cols, float limit);
// Throws for NaN, infinity, and magnitudes whose group has no scale, in rows [first, first + rows).
void CheckMagnitudes(const Encoder& e, size_t first, size_t rows);
// The same, where the bits of the largest magnitude of these rows are known.
void CheckMagnitudes(const Encoder& e, size_t first, size_t rows, uint32_t largest);

// Scale and shift of each group of these rows.
void FindRows(const Encoder& e, const SchemeSearch& search, const float* x, size_t rows, float* scale, float* shift);
void CodeRow(const Encoder& e, const float* x, const float* scale, const float* shift, uint8_t* codes);
// Codes and scales of rows [first, first + rows) by the reference's rule; throws as CheckMagnitudes does.
void RuleRows(const Encoder& e, const SchemeSearch& search, size_t first, size_t rows, size_t code_cols, float* scale,
              float* shift, const CodePlace& codes);

// Integers that share words with other rows are gathered, and packed in the end.
class SchemeWriter {
 public:
  SchemeWriter(const Encoder& e, const SchemeArrays<uint8_t>& arrays);

  size_t code_cols() const { return code_cols_; }
  // Calls body(first, end) for the rows of all runs, on all threads: of about as many rows as are wanted, or more.
  void ForRuns(size_t rows, const std::function<void(size_t first, size_t end)>& body) const;
  // The rows of codes of a run, in order.
  class Run {
   public:
    explicit Run(SchemeWriter& out);
    void Put(size_t row, const uint8_t* codes, size_t rows);  // rows x code_cols of them

   private:
    SchemeWriter& out_;
    std::optional<PlaneTile> tile_;
    std::optional<RowSlots> slots_;
  };
  // Where codes of whole rows may be written without a run; nowhere if they are not stored so.
  CodePlace CodesInPlace(size_t row) const;
  void PutScales(size_t row, const float* scale, const float* shift, size_t rows = 1);  // of a single level
  void PutIntegers(Part part, size_t row, const float* values, size_t rows = 1);
  void PutNumbers(Part part, size_t row, const float* values, size_t rows = 1);
  void Finish();

 private:
  PlaneTile Tile(Scratch& memory) const { return {e_.s.code, e_.rows, code_cols_, memory}; }
  RowSlots Slots() const { return {e_.s.code, e_.rows, code_cols_}; }
  void PutCodes(size_t row, const uint8_t* codes, size_t rows);
  uint8_t* Base(Part part) const { return arrays_[e_.s.interleaved ? Part::kCode : part]; }

  const Encoder& e_;
  const SchemeArrays<uint8_t>& arrays_;
  size_t code_cols_, tile_rows_ = 1;
  bool tiled_ = false, slotted_ = false;
  std::vector<uint8_t> codes_, shifts_, scales_;
};

// The ways to encode; which one is the format's is decided in scheme.cc.
void EncodeRows(const Encoder& e, SchemeWriter& out);         // a scale for each group of a row
void EncodeRegions(const Encoder& e, SchemeWriter& out);      // groups of several rows
void EncodeLevels(const Encoder& e, SchemeWriter& out);       // scales over a second level
void EncodeGroupTables(const Encoder& e, SchemeWriter& out);  // a table for each group
void EncodeVectors(const Encoder& e, SchemeWriter& out);      // a codebook

// The table, or codebook, that is best for the weights: codes x dim numbers, the largest of which is 1 where there are
// scales.
std::vector<float> LearnTable(Encoder& e);

// Rows of vectors, one after another: the best scale of each group, as stored, and codes.
class VectorRow {
 public:
  explicit VectorRow(const Encoder& e);
  void Run(const float* x, float* scale, uint16_t* codes);
  void FindScales(const float* x, float* scale, uint16_t* codes);  // the codes are for memory only

 private:
  struct Sums { double ll = 0, xl = 0; };  // of a group: weight * value^2, weight * value * x

  size_t Begin(size_t g) const { return g * e_.group(); }
  size_t End(size_t g) const { return std::min(e_.cols, (g + 1) * e_.group()); }
  float Stored(float scale) const;
  void Divide(const float* x, const float* scale);
  void Refit(const float* x, const uint16_t* codes, float* scale) const;
  void Try(const float* x, float* scale, uint16_t* codes);

  const Encoder& e_;
  size_t groups_;
  RoughBook rough_;
  bool roughly_;
  double inverse_root_;  // of the codebook's mean square
  std::vector<float> u_, distance_;
  std::vector<Sums> best_;
  std::vector<double> gain_;
  std::vector<float> trial_;
  bool coarse_;          // scales of few bits: a fit may be worse when it is rounded
  std::vector<float> starts_;
};

}  // namespace edgequant
