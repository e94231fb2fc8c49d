#include "core/threads.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace edgequant {
namespace {

int UsableCores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, int(std::thread::hardware_concurrency()));
}

struct Job {
  size_t n, grain;
  const std::function<void(size_t, size_t)>* body;
  std::atomic<size_t> next{0};
  std::mutex error_mutex;
  std::exception_ptr error;

  void Work() {
    for (size_t at; (at = next.fetch_add(grain, std::memory_order_relaxed)) < n;) {
      try {
        (*body)(at, std::min(n, at + grain));
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        next = n;
      }
    }
  }
};

thread_local bool inside_body = false;

// Workers watch for the next job for a while before they sleep: a job that follows soon starts within a microsecond,
// and an idle process costs nothing. The caller works too, and waits only for workers that have begun: one that the
// system does not run (a busy machine, somebody else's thread pool) delays nobody.
class Pool {
 public:
  explicit Pool(int workers) {
    for (int k = 0; k < workers; ++k) threads_.emplace_back([this] { Loop(); });
  }
  ~Pool() {
    stop_ = true;
    Announce();
    for (auto& t : threads_) t.join();
  }
  size_t workers() const { return threads_.size(); }

  void Run(Job& job) {
    job_.store(&job);
    Announce();
    inside_body = true;
    job.Work();
    inside_body = false;
    job_.store(nullptr);  // nobody begins any more
    for (int turn = 0; active_.load() != 0; ++turn) {
      if (turn < kTurns) Relax();
      else std::this_thread::yield();
    }
  }

 private:
  static constexpr int kTurns = 4000;  // some 50 microseconds

  void Announce() {
    epoch_.fetch_add(1);
    if (asleep_.load() == 0) return;
    KeepApart();
    epoch_.notify_all();
  }
  // Linux likes to wake a thread on the core of the one that wakes it, which is busy from now on; it takes milliseconds
  // until another core fetches it. So workers are kept away from the caller's core.
  void KeepApart() {
#ifdef __linux__
    const int core = sched_getcpu();
    if (core < 0 || core == callers_core_) return;
    cpu_set_t others;
    if (sched_getaffinity(0, sizeof others, &others) != 0) return;
    CPU_CLR(core, &others);
    if (CPU_COUNT(&others) == 0) return;
    for (auto& t : threads_) pthread_setaffinity_np(t.native_handle(), sizeof others, &others);
    callers_core_ = core;
#endif
  }
  void Loop() {
    inside_body = true;
    for (uint32_t seen = 0;;) {
      for (int turn = 0; epoch_.load(std::memory_order_acquire) == seen; ++turn) {
        if (turn < kTurns) {
          Relax();
          continue;
        }
        asleep_.fetch_add(1);
        epoch_.wait(seen);
        asleep_.fetch_sub(1);
      }
      seen = epoch_.load();
      if (stop_) return;
      active_.fetch_add(1);  // before the look at job_: either the job is still there, or Run() sees this worker
      if (Job* job = job_.load()) job->Work();
      active_.fetch_sub(1);
    }
  }

  std::vector<std::thread> threads_;
  int callers_core_ = -1;  // that the workers are kept away from; used by one caller at a time
  alignas(64) std::atomic<uint32_t> epoch_{0};
  alignas(64) std::atomic<Job*> job_{nullptr};
  alignas(64) std::atomic<int> active_{0};
  alignas(64) std::atomic<int> asleep_{0};
  std::atomic<bool> stop_{false};
};

// On a thread of somebody else.
void WorkAsGuest(void* job) {
  inside_body = true;
  static_cast<Job*>(job)->Work();
  inside_body = false;
}

// Never destroyed: at exit, and in a forked child (which has no workers), joining them would hang.
struct State {
  std::mutex turn;
  std::atomic<int> threads{0};
  Pool* pool = nullptr;
  OpenMpParallel parallel = nullptr;
  OpenMpMaxThreads max_threads = nullptr;
};
State& Global() {
  static State* state = [] {
    pthread_atfork(nullptr, nullptr, [] { new (&Global()) State(); });
    return new State();
  }();
  return *state;
}

}  // namespace

void SetNumThreads(int n) { Global().threads = std::max(0, n); }

int NumThreads() {
  const int n = Global().threads;
  return n > 0 ? n : UsableCores();
}

void ShareOpenMp(OpenMpParallel parallel, OpenMpMaxThreads max_threads) {
  State& state = Global();
  const std::lock_guard lock(state.turn);
  state.parallel = parallel;
  state.max_threads = max_threads;
}

void ParallelFor(size_t n, size_t grain, const std::function<void(size_t, size_t)>& body) {
  Job job{n, std::max<size_t>(1, grain), &body, {}, {}, {}};
  const int threads = NumThreads();
  if (inside_body || threads == 1 || n <= job.grain) {
    job.Work();
  } else {
    State& state = Global();
    const std::lock_guard lock(state.turn);
    if (state.parallel && state.max_threads() == threads) {
      state.parallel(&WorkAsGuest, &job, unsigned(threads), 0);
    } else {
      if (!state.pool || int(state.pool->workers()) != threads - 1) {
        delete state.pool;
        state.pool = nullptr;
        state.pool = new Pool(threads - 1);
      }
      state.pool->Run(job);
    }
  }
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace edgequant
