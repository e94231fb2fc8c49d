// One pool of worker threads for the whole process.
#pragma once
#include <cstddef>
#include <functional>

namespace edgequant {

// Threads that ParallelFor uses, the caller's own included. 0 means all cores that this process may use (the default).
void SetNumThreads(int n);
int NumThreads();

// Calls body(begin, end) over disjoint ranges that cover [0, n); every range starts at a multiple of `grain`, ranges
// are handed out one grain at a time. The split does not depend on the number of threads, so results that depend only
// on their own range are the same at any thread count. An exception from a body is rethrown here, after all have
// ended. A call from inside a body runs on the calling thread alone; calls from several threads take turns.
void ParallelFor(size_t n, size_t grain, const std::function<void(size_t begin, size_t end)>& body);

// What a thread does while it watches for another.
inline void Relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace edgequant
