// Random weights and activations, and slow references for the panel kernels.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "core/half.h"
#include "format/encode.h"
#include "kernels/cpu/targets.h"
#include "op/matmul.h"

namespace edgequant {

inline float DecodeWeight(FormatId format, const uint8_t* block, int i) {
  switch (format) {
#define EDGEQUANT_X(id, name, description, gguf) \
  case FormatId::k##id: return Decode<description>(block, i);
    EDGEQUANT_FORMATS(EDGEQUANT_X)
#undef EDGEQUANT_X
  }
  return 0;
}

inline std::vector<FormatId> PanelFormats() {
  std::vector<FormatId> formats;
  for (int f = 0; f < kFormatCount; ++f)
    if (CanRepack(FormatId(f))) formats.push_back(FormatId(f));
  return formats;
}

inline std::vector<FormatId> CompactFormats() {
  std::vector<FormatId> formats;
  for (int f = 0; f < kFormatCount; ++f)
    if (ChoosePanel(FormatId(f), PanelKind::kCompact) == PanelKind::kCompact) formats.push_back(FormatId(f));
  return formats;
}

// Blocks of random bits with scales of a sane size.
struct RandomWeights {
  FormatId format;
  size_t rows, cols, row_bytes;
  std::vector<uint8_t> data;

  RandomWeights(FormatId id, size_t n, size_t k, std::mt19937& rng)
      : format(id), rows(n), cols(k), row_bytes(RowBytes(id, k)), data(n * row_bytes) {
    const Block& b = BlockOf(id);
    for (uint8_t& c : data) c = uint8_t(rng() >> 24);
    for (size_t at = 0; at < data.size(); at += size_t(b.bytes))
      for (const Level* level : {&b.scale, &b.offset}) SetLevel(*level, b.n, &data[at], rng);
  }
  TensorView View() const { return {format, data.data(), rows, cols}; }
  double At(size_t row, size_t k) const {
    const Block& b = BlockOf(format);
    return DecodeWeight(format, &data[row * row_bytes + k / size_t(b.n) * size_t(b.bytes)], int(k % size_t(b.n)));
  }

 private:
  static void SetPieces(const Field& f, uint16_t bits, uint8_t* block) {
    for (int p = 0; p * f.bits < 16; ++p) {
      const int at = FirstBit(f, p);
      block[at / 8] = uint8_t(block[at / 8] & ~(((1 << f.bits) - 1) << at % 8));
      WriteField(f, block, p, bits >> p * f.bits);
    }
  }
  static void SetLevel(const Level& s, int n, uint8_t* block, std::mt19937& rng) {
    const int numbers = s.type == Number::kNone ? 0 : s.group ? n / s.group : 1;
    for (int k = 0; k < numbers; ++k) {
      uint8_t* p = block + s.byte + k * SizeOf(s.type);
      const uint16_t half =
          F16FromF32(std::ldexp(1 + float(rng() % 1000) / 1000, -int(rng() % 4) - 5) * (rng() % 5 ? 1.0f : -1.0f));
      if (s.pieces.kind != FieldKind::kNone) SetPieces(s.pieces, half, block);
      else if (s.type == Number::kF16) memcpy(p, &half, 2);
      else if (SizeOf(s.type) == 1) *p = uint8_t(s.type == Number::kUE4M3 ? rng() % 256 : 120 + rng() % 8);
    }
  }
};

inline std::vector<float> RandomRow(size_t n, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& v : x) v = normal(rng);
  return x;
}

// What int8 arithmetic makes of a row: 256 numbers share a scale of a 127th of the largest magnitude.
inline std::vector<double> RoundedToInt8(const float* x, size_t n) {
  std::vector<double> y(n);
  for (size_t at = 0; at < n; at += 256) {
    const size_t end = std::min(n, at + 256);
    float most = 0;
    for (size_t i = at; i < end; ++i) most = std::max(most, std::fabs(x[i]));
    for (size_t i = at; i < end; ++i)
      y[i] = most > 0 ? double(std::nearbyint(x[i] * (127 / most))) * double(most / 127) : 0;
  }
  return y;
}

// Runs the test once per instruction set that this machine has.
template <class Test>
void ForEachTarget(const Test& test) {
  for (const std::string& target : KernelTargets()) {
    ASSERT_TRUE(UseKernelTarget(target));
    SCOPED_TRACE(target);
    test();
  }
  UseKernelTarget("");
}

}  // namespace edgequant
