// Teams of threads that share a loop, and what ends a run early.
#ifndef EOSFM_TEAM_H
#define EOSFM_TEAM_H

#include <pthread.h>
#include <stdint.h>
#include <sys/types.h>

#include <atomic>

#include "memory.h"

namespace eosfm {

// Why a run ends early. Any thread may set it; workers check it between the tasks of a loop.
class Stop {
 public:
  enum Reason : int { kNone = 0, kCancelled, kDeadline };

  void reset(int64_t deadline_ns) {
    deadline_ns_ = deadline_ns;
    reason_.store(kNone, std::memory_order_relaxed);
  }
  void request(Reason reason) {
    int none = kNone;
    reason_.compare_exchange_strong(none, reason, std::memory_order_relaxed);
  }
  Reason reason() const { return static_cast<Reason>(reason_.load(std::memory_order_relaxed)); }
  // Returns whether the run is to end, by the clock too.
  bool due();

 private:
  std::atomic<int> reason_{kNone};
  int64_t deadline_ns_ = 0;  // of the monotonic clock; 0: none
};

int64_t monotonic_ns();

// Adds the time from here to the end of its scope to a sum.
class Clock {
 public:
  explicit Clock(int64_t* sum) : sum_(sum), began_(monotonic_ns()) {}
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;
  ~Clock() { *sum_ += monotonic_ns() - began_; }

 private:
  int64_t* sum_;
  int64_t began_;
};

// Threads that sleep until there is a loop to share.
class Pool {
 public:
  using Body = void (*)(void* context, int task, int worker);

  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool();

  // The host's function that each thread calls as it starts.
  struct Hook {
    void (*started)(void* user, int32_t thread);  // null: nothing
    void* user;
  };

  // Starts workers - 1 threads; the caller of `each` is worker 0. Returns 0 when the hook has been called on all, or
  // the errno of the failure.
  int start(const eosfm_allocator& allocator, int workers, const Hook& hook);
  // Returns the bytes that this takes.
  static size_t bytes(int workers) { return bytes_of<Seat>(workers - 1); }
  // Ends the threads, after the tasks that they are at.
  void end();
  int workers() const { return workers_; }
  // Returns whether the threads are in this process: the child of a fork has only the thread that forked.
  bool is_here() const;

  // Runs body(context, task, worker) for every task below `count`; returns when all are done.
  void each(int count, Body body, void* context);

 private:
  static void* thread_main(void* argument);
  void serve(int worker);
  void take_tasks(int worker);

  struct Seat {
    Pool* pool;
    int worker;
    pthread_t thread;
  };

  Array<Seat> seats_;
  int workers_ = 1;
  int started_ = 0;
  Hook hook_ = {nullptr, nullptr};
  pid_t process_ = 0;  // that started them
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t work_ = PTHREAD_COND_INITIALIZER;
  pthread_cond_t done_ = PTHREAD_COND_INITIALIZER;
  std::atomic<uint32_t> round_{0};   // changes when there is a new loop, or the pool ends
  std::atomic<int> busy_{0};         // threads that have not finished the loop
  std::atomic<int> next_{0};         // the next task
  int sleeping_ = 0;
  bool ending_ = false;
  Body body_ = nullptr;
  void* context_ = nullptr;
  int count_ = 0;
};

// The workers of one specialist: the whole pool, or one worker of it.
class Team {
 public:
  Team(Pool* pool, Stop* stop) : pool_(pool), stop_(stop), worker_(0) {}
  Team(int worker, Stop* stop) : pool_(nullptr), stop_(stop), worker_(worker) {}

  // Calls body(task, worker) for every task, unless the run is to stop.
  template <class F>
  void each(int count, const F& body) {
    if (pool_ == nullptr || pool_->workers() == 1) {
      for (int task = 0; task < count && !stop_->due(); ++task) body(task, worker_);
      return;
    }
    struct Loop {
      const F* body;
      Stop* stop;
    } loop = {&body, stop_};
    pool_->each(count, [](void* context, int task, int worker) {
      const Loop* l = static_cast<const Loop*>(context);
      if (!l->stop->due()) (*l->body)(task, worker);
    }, &loop);
  }

  bool stopped() const { return stop_->reason() != Stop::kNone; }

 private:
  Pool* pool_;
  Stop* stop_;
  int worker_;
};

}  // namespace eosfm

#endif
