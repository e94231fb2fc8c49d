// What differs between compilers and Highway releases, for kernels that count instructions.
// Include before hwy/foreach_target.h.
#pragma once

// Targets that would only repeat code. The panel kernels need vectors of a known size, and every SVE machine has NEON;
// they use nothing of Zen 4 and Sapphire Rapids that AVX3_DL lacks; without VNNI, 512 bits gain little over AVX2's 256;
// a CPU with SSSE3 but not SSE4 is twenty years old.
#if !defined(HWY_DISABLED_TARGETS)
#if defined(__aarch64__)
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#elif defined(__x86_64__)
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3 | HWY_AVX3_ZEN4 | HWY_AVX3_SPR)
#endif
#endif
#include <hwy/base.h>
#include <hwy/detect_targets.h>
#if !defined(HWY_AVX3_ZEN4)  // 1.0.3
#define HWY_AVX3_ZEN4 0
#endif
#if !defined(HWY_AVX3_SPR)
#define HWY_AVX3_SPR 0
#endif

// Lambdas of unrolled loops must not stay functions, and clang gives them no target of their own.
#define EDGEQUANT_UNROLLED HWY_ATTR __attribute__((always_inline))

// Highway 1.0.3's AVX3_DL names avxvnni where avx512vnni is meant; clang's assembler minds. Use behind
// HWY_BEFORE_NAMESPACE.
#if HWY_ARCH_X86 && HWY_COMPILER_CLANG
#define EDGEQUANT_BEFORE_VNNI HWY_PUSH_ATTRIBUTES("avx512f,avx512vnni")
#define EDGEQUANT_AFTER_VNNI HWY_POP_ATTRIBUTES
#else
#define EDGEQUANT_BEFORE_VNNI
#define EDGEQUANT_AFTER_VNNI
#endif

// Keeps a loaded vector in its register: g++ 12 else folds the load into every use and reads the line again each time.
#if HWY_ARCH_X86
#define EDGEQUANT_PIN(v) asm volatile("" : "+v"((v).raw))
#else
#define EDGEQUANT_PIN(v) ((void)0)
#endif
