#if defined(EDGEQUANT_ATTEND_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_ATTEND_INL_H_
#undef EDGEQUANT_ATTEND_INL_H_
#else
#define EDGEQUANT_ATTEND_INL_H_
#endif

#include <math.h>

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, kRowMultiple>;

HWY_INLINE float Total(Floats d, hn::Vec<Floats> v) { return hn::GetLane(hn::SumOfLanes(d, v)); }

// Numbers as floats: f32, or the upper halves of them (bf16).
HWY_INLINE hn::Vec<Floats> LoadNumbers(Floats d, const float* p) { return hn::LoadU(d, p); }
HWY_INLINE hn::Vec<Floats> LoadNumbers(Floats d, const uint16_t* p) {
  const hn::Rebind<uint16_t, Floats> dh;
  const hn::RebindToUnsigned<Floats> du;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(dh, p))));
}

template <class T>
HWY_NOINLINE float Dot(const float* HWY_RESTRICT a, const T* HWY_RESTRICT b, size_t n) {
  const Floats d;
  const size_t lanes = hn::Lanes(d);
  auto sum0 = hn::Zero(d), sum1 = sum0;
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    sum0 = hn::MulAdd(hn::LoadU(d, a + i), LoadNumbers(d, b + i), sum0);
    sum1 = hn::MulAdd(hn::LoadU(d, a + i + lanes), LoadNumbers(d, b + i + lanes), sum1);
  }
  for (; i < n; i += lanes) sum0 = hn::MulAdd(hn::LoadU(d, a + i), LoadNumbers(d, b + i), sum0);
  return Total(d, hn::Add(sum0, sum1));
}

template <class T>
HWY_NOINLINE void NormWith(const float* x, const T* w, float plus, float eps, size_t n, float* y) {
  const Floats d;
  const auto scale = hn::Set(d, 1.0f / sqrtf(Dot(x, x, n) / float(n) + eps)), more = hn::Set(d, plus);
  for (size_t i = 0; i < n; i += hn::Lanes(d))
    hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, x + i), scale), hn::Add(LoadNumbers(d, w + i), more)), d, y + i);
}
void NormRowTargeted(const float* x, FormatId type, const void* w, float plus, float eps, size_t n, float* y) {
  if (type == FormatId::kF32) NormWith(x, static_cast<const float*>(w), plus, eps, n, y);
  else NormWith(x, static_cast<const uint16_t*>(w), plus, eps, n, y);
}

HWY_NOINLINE void RotateHeadTargeted(float* x, const float* HWY_RESTRICT cos, const float* HWY_RESTRICT sin, size_t n) {
  const hn::CappedTag<float, kRowMultiple / 2> d;
  const size_t half = n / 2;
  for (size_t i = 0; i < half; i += hn::Lanes(d)) {
    const auto a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + half + i);
    const auto c0 = hn::LoadU(d, cos + i), c1 = hn::LoadU(d, cos + half + i);
    const auto s0 = hn::LoadU(d, sin + i), s1 = hn::LoadU(d, sin + half + i);
    hn::StoreU(hn::NegMulAdd(b, s0, hn::Mul(a, c0)), d, x + i);
    hn::StoreU(hn::MulAdd(a, s1, hn::Mul(b, c1)), d, x + half + i);
  }
}

template <class T>
HWY_NOINLINE void AttendOver(const float* HWY_RESTRICT q, const T* HWY_RESTRICT keys, const T* HWY_RESTRICT values,
                             size_t n, size_t width, float scale, float* HWY_RESTRICT scores, float* HWY_RESTRICT y) {
  const Floats d;
  const size_t lanes = hn::Lanes(d), padded = (n + kRowMultiple - 1) / kRowMultiple * kRowMultiple;
  for (size_t t = 0; t < n; ++t) scores[t] = scale * Dot(q, keys + t * width, width);
  for (size_t t = n; t < padded; ++t) scores[t] = -INFINITY;
  auto most = hn::Set(d, scores[0]), total = hn::Zero(d);
  for (size_t t = 0; t < padded; t += lanes) most = hn::Max(most, hn::LoadU(d, scores + t));
  const auto top = hn::MaxOfLanes(d, most);
  for (size_t t = 0; t < padded; t += lanes) {
    // far below the largest a score counts nothing; the padding must not be infinite where Exp cannot take it
    const auto e = hn::Exp(d, hn::Max(hn::Sub(hn::LoadU(d, scores + t), top), hn::Set(d, -100.0f)));
    hn::StoreU(e, d, scores + t);
  }
  for (size_t t = n; t < padded; ++t) scores[t] = 0;
  for (size_t t = 0; t < padded; t += lanes) total = hn::Add(total, hn::LoadU(d, scores + t));
  const auto share = hn::Set(d, 1.0f / Total(d, total));
  size_t i = 0;
  for (; i + 4 * lanes <= width; i += 4 * lanes) {
    auto y0 = hn::Zero(d), y1 = y0, y2 = y0, y3 = y0;
    for (size_t t = 0; t < n; ++t) {
      const auto p = hn::Set(d, scores[t]);
      const T* v = values + t * width + i;
      y0 = hn::MulAdd(p, LoadNumbers(d, v), y0);
      y1 = hn::MulAdd(p, LoadNumbers(d, v + lanes), y1);
      y2 = hn::MulAdd(p, LoadNumbers(d, v + 2 * lanes), y2);
      y3 = hn::MulAdd(p, LoadNumbers(d, v + 3 * lanes), y3);
    }
    hn::StoreU(hn::Mul(y0, share), d, y + i);
    hn::StoreU(hn::Mul(y1, share), d, y + i + lanes);
    hn::StoreU(hn::Mul(y2, share), d, y + i + 2 * lanes);
    hn::StoreU(hn::Mul(y3, share), d, y + i + 3 * lanes);
  }
  for (; i < width; i += lanes) {
    auto sum = hn::Zero(d);
    for (size_t t = 0; t < n; ++t) sum = hn::MulAdd(hn::Set(d, scores[t]), LoadNumbers(d, values + t * width + i), sum);
    hn::StoreU(hn::Mul(sum, share), d, y + i);
  }
}

void AttendHeadTargeted(FormatId type, const float* q, const void* keys, const void* values, size_t n, size_t width,
                        float scale, float* scores, float* y) {
  if (type == FormatId::kF32)
    AttendOver(q, static_cast<const float*>(keys), static_cast<const float*>(values), n, width, scale, scores, y);
  else
    AttendOver(q, static_cast<const uint16_t*>(keys), static_cast<const uint16_t*>(values), n, width, scale, scores, y);
}

// Both functions are g / (1 + exp(-t)): for SiLU t is g, for GELU as the hyperbolic tangent has it a polynomial of g.
HWY_NOINLINE void GateRowTargeted(Gate kind, float* HWY_RESTRICT gate, const float* HWY_RESTRICT up, size_t n) {
  const Floats d;
  const auto one = hn::Set(d, 1.0f), limit = hn::Set(d, -80.0f);
  const auto linear = hn::Set(d, kind == Gate::kSilu ? 1.0f : 1.5957691216f);  // 2 sqrt(2 / pi)
  const auto cubic = hn::Set(d, kind == Gate::kSilu ? 0.0f : 1.5957691216f * 0.044715f);
  for (size_t i = 0; i < n; i += hn::Lanes(d)) {
    const auto g = hn::LoadU(d, gate + i);
    const auto small = hn::Min(hn::Max(g, hn::Set(d, -1e6f)), hn::Set(d, 1e6f));  // the cube stays finite
    const auto t = hn::Mul(small, hn::MulAdd(hn::Mul(small, small), cubic, linear));
    const auto e = hn::Exp(d, hn::Neg(hn::Max(t, limit)));
    hn::StoreU(hn::Mul(hn::Div(g, hn::Add(one, e)), hn::LoadU(d, up + i)), d, gate + i);
  }
}

template <class T>
HWY_NOINLINE void AddNumbers(float* HWY_RESTRICT x, const T* HWY_RESTRICT y, size_t n) {
  const Floats d;
  for (size_t i = 0; i < n; i += hn::Lanes(d))
    hn::StoreU(hn::Add(hn::LoadU(d, x + i), LoadNumbers(d, y + i)), d, x + i);
}
void AddRowTargeted(float* x, FormatId type, const void* y, size_t n) {
  if (type == FormatId::kF32) AddNumbers(x, static_cast<const float*>(y), n);
  else AddNumbers(x, static_cast<const uint16_t*>(y), n);
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_ATTEND_INL_H_
