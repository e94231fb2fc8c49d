#include "core/threads.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
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
    for (size_t at; (at = next.fetch_add(grain)) < n;) {
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

class Pool {
 public:
  explicit Pool(int workers) {
    for (int k = 0; k < workers; ++k) threads_.emplace_back([this] { Loop(); });
  }
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (auto& t : threads_) t.join();
  }
  size_t workers() const { return threads_.size(); }
  void Run(Job& job) {
    {
      const std::lock_guard lock(mutex_);
      job_ = &job;
      ++epoch_;
      busy_ = threads_.size();
    }
    wake_.notify_all();
    inside_body = true;
    job.Work();
    inside_body = false;
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
    job_ = nullptr;
  }

 private:
  void Loop() {
    inside_body = true;
    uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stop_ || epoch_ != seen; });
      if (stop_) return;
      seen = epoch_;
      Job* job = job_;
      lock.unlock();
      job->Work();
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;
  uint64_t epoch_ = 0;
  size_t busy_ = 0;
  bool stop_ = false;
};

// Never destroyed: at exit, and in a forked child (which has no workers), joining them would hang.
struct State {
  std::mutex turn;
  std::atomic<int> threads{0};
  Pool* pool = nullptr;
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

void ParallelFor(size_t n, size_t grain, const std::function<void(size_t, size_t)>& body) {
  Job job{n, std::max<size_t>(1, grain), &body, {}, {}, {}};
  const int threads = NumThreads();
  if (inside_body || threads == 1 || n <= job.grain) {
    job.Work();
  } else {
    State& state = Global();
    const std::lock_guard lock(state.turn);
    if (!state.pool || int(state.pool->workers()) != threads - 1) {
      delete state.pool;
      state.pool = nullptr;
      state.pool = new Pool(threads - 1);
    }
    state.pool->Run(job);
  }
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace edgequant
