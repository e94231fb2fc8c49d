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

// Lets loops run on the workers of the OpenMP library that this process uses already, where it is set to as many
// threads: two pools would take the cores from each other, for each watches for its next job for a while. `parallel` is
// its GOMP_parallel, `max_threads` its omp_get_max_threads; null ends this. A forked child goes back to workers of its
// own.
using OpenMpParallel = void (*)(void (*body)(void*), void* data, unsigned threads, unsigned flags);
using OpenMpMaxThreads = int (*)();
void ShareOpenMp(OpenMpParallel parallel, OpenMpMaxThreads max_threads);

// What a thread does while it watches for another.
inline void Relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace edgequant
