// Loops that follow one another on the same threads: between them lies the exchange of one cache line, some hundred
// nanoseconds, where a ParallelFor costs several microseconds.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>

#include "core/threads.h"

namespace edgequant {

class Team;

// Calls body(team) on every thread of the pool. All must call the same loops on it, in the same order, and do nothing
// else that others can see. A thread that comes late passes over the loops that have ended; one that never comes is not
// missed, and once the system takes a thread away within a task the caller goes on alone. An exception from a loop ends
// all and is rethrown here.
template <class Body>
void WithTeam(const Body& body);

class Team {
 public:
  size_t threads() const { return shared_.threads; }

  // Calls task(i) for every i < n, on whichever thread is free, and ends when all have. `prepare` is called with a
  // thread's first task before this: what it reads may be written by tasks of earlier loops, but not of this one.
  template <class Prepare, class Task>
  void For(size_t n, const Prepare& prepare, const Task& task) {
    const uint64_t loop = next_loop_++;
    if (n == 0) return void(shared_.Advance(loop, 0));
    if (!is_caller_ && shared_.alone.load(std::memory_order_relaxed)) return;
    Clock::time_point begin;
    bool prepared = false;
    for (uint64_t i; (i = shared_.Claim(loop, n)) < n;) {
      try {
        if (!prepared) {
          begin = Clock::now();
          prepare(size_t(i));
        }
        prepared = true;
        task(size_t(i));
      } catch (...) {
        shared_.Give(std::current_exception());
        return;
      }
      if (shared_.done.fetch_add(1, std::memory_order_acq_rel) + 1 == n) {
        shared_.done.store(0, std::memory_order_relaxed);
        shared_.Advance(loop, n);
      }
    }
    if (shared_.Loop() == loop) Wait(loop, prepared ? Clock::now() - begin : Clock::duration::zero());
  }

  // The same with one task per thread, a range of neighbours: for tasks that read memory from one end to the other.
  template <class Prepare, class Task>
  void ForRanges(size_t n, const Prepare& prepare, const Task& task) {
    const size_t parts = std::min(n, threads());
    For(parts, [&](size_t part) { prepare(part * n / parts); }, [&](size_t part) {
      for (size_t i = part * n / parts; i < (part + 1) * n / parts; ++i) task(i);
    });
  }

 private:
  template <class Body>
  friend void WithTeam(const Body& body);

  using Clock = std::chrono::steady_clock;
  static constexpr int kTaskBits = 32;
  static constexpr uint64_t kFailed = ~uint64_t{0};  // later than every loop

  struct Shared {
    alignas(64) std::atomic<uint64_t> ticket{0};  // the loop that runs, and its next task
    std::atomic<uint64_t> done{0};                // tasks of it that have ended
    alignas(64) std::atomic<bool> alone{false};  // only the caller begins tasks
    size_t threads = 1;
    std::mutex error_mutex;
    std::exception_ptr error;

    uint64_t Loop() const { return ticket.load(std::memory_order_acquire) >> kTaskBits; }
    // The next task of the loop; n or more if none is left, or the loop has ended.
    uint64_t Claim(uint64_t loop, uint64_t n) {
      uint64_t now = ticket.load(std::memory_order_acquire);
      for (;;) {
        if (now >> kTaskBits != loop) return n;
        const uint64_t task = now & ((uint64_t{1} << kTaskBits) - 1);
        if (task >= n) return n;
        if (ticket.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) return task;
      }
    }
    // To the next loop, unless one has failed.
    bool Advance(uint64_t loop, uint64_t n) {
      uint64_t now = loop << kTaskBits | n;
      return ticket.compare_exchange_strong(now, (loop + 1) << kTaskBits, std::memory_order_acq_rel);
    }
    void Give(std::exception_ptr e) {
      const std::lock_guard lock(error_mutex);
      if (!error) error = e;
      ticket.store(kFailed, std::memory_order_release);
    }
  };

  Team(Shared& shared, bool is_caller) : shared_(shared), is_caller_(is_caller) {}

  // Until the loop has ended. Others should need no longer than this thread did, and some time for surprises.
  void Wait(uint64_t loop, Clock::duration own) {
    const auto since = Clock::now(), limit = since + std::max<Clock::duration>(own, std::chrono::microseconds(30));
    for (int turn = 1; shared_.Loop() == loop; ++turn) {
      Relax();
      if (turn % 64 != 0 || Clock::now() < limit) continue;
      if (is_caller_) shared_.alone.store(true, std::memory_order_relaxed);
      std::this_thread::yield();
    }
  }

  Shared& shared_;
  const bool is_caller_;
  uint64_t next_loop_ = 0;
};

template <class Body>
void WithTeam(const Body& body) {
  Team::Shared shared;
  shared.threads = size_t(NumThreads());
  const auto caller = std::this_thread::get_id();
  ParallelFor(shared.threads, 1, [&](size_t, size_t) {
    Team team(shared, std::this_thread::get_id() == caller);
    body(team);
  });
  if (shared.error) std::rethrow_exception(shared.error);
}

}  // namespace edgequant
