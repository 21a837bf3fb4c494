#include "team.h"

#include <errno.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

namespace eosfm {
namespace {

// Loops of one run follow each other within microseconds, so a worker polls for the next one this many times before
// it sleeps. More polling would steal the core from other threads.
constexpr int kLooks = 2000;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns the signals that come from outside, which are for the host's threads: its handlers may expect to run there.
// Signals that a thread causes itself, such as a fault in a mapped file, stay unblocked.
sigset_t signals_of_others() {
  sigset_t set;
  sigfillset(&set);
  constexpr int kFaults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
  for (int fault : kFaults) sigdelset(&set, fault);
  return set;
}

}  // namespace

int64_t monotonic_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000000000 + now.tv_nsec;
}

bool Stop::due() {
  if (reason() != kNone) return true;
  if (deadline_ns_ == 0 || monotonic_ns() < deadline_ns_) return false;
  request(kDeadline);
  return true;
}

int Pool::start(const eosfm_allocator& allocator, int workers, const Hook& hook) {
  if (!seats_.allocate(allocator, workers - 1)) return ENOMEM;
  workers_ = workers;
  hook_ = hook;
  process_ = getpid();
  const sigset_t blocked = signals_of_others();
  sigset_t before;
  pthread_sigmask(SIG_BLOCK, &blocked, &before);  // threads inherit it
  int failure = 0;
  for (int i = 0; failure == 0 && i < workers - 1; ++i) {
    seats_[i].pool = this;
    seats_[i].worker = i + 1;
    failure = pthread_create(&seats_[i].thread, nullptr, thread_main, &seats_[i]);
    started_ += failure == 0 ? 1 : 0;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  // A thread comes to its first loop when its hook has returned.
  if (failure == 0 && hook.started != nullptr) each(0, nullptr, nullptr);
  return failure;
}

bool Pool::is_here() const { return started_ == 0 || process_ == getpid(); }

Pool::~Pool() { end(); }

void Pool::end() {
  // In a fork's child there is nobody to wait for, and mutex and conditions are as the threads left them.
  if (ending_ || !is_here()) return;
  pthread_mutex_lock(&mutex_);
  ending_ = true;
  round_.fetch_add(1, std::memory_order_release);
  pthread_cond_broadcast(&work_);
  pthread_mutex_unlock(&mutex_);
  for (int i = 0; i < started_; ++i) pthread_join(seats_[i].thread, nullptr);
  pthread_cond_destroy(&work_);
  pthread_cond_destroy(&done_);
  pthread_mutex_destroy(&mutex_);
}

void* Pool::thread_main(void* argument) {
  const Seat* seat = static_cast<Seat*>(argument);
  const Hook& hook = seat->pool->hook_;
  if (hook.started != nullptr) hook.started(hook.user, seat->worker);
  seat->pool->serve(seat->worker);
  return nullptr;
}

void Pool::each(int count, Body body, void* context) {
  body_ = body;
  context_ = context;
  count_ = count;
  next_.store(0, std::memory_order_relaxed);
  busy_.store(workers_ - 1, std::memory_order_relaxed);
  pthread_mutex_lock(&mutex_);
  round_.fetch_add(1, std::memory_order_release);
  if (sleeping_ > 0) pthread_cond_broadcast(&work_);
  pthread_mutex_unlock(&mutex_);
  take_tasks(0);
  for (int look = 0; look < kLooks; ++look) {
    if (busy_.load(std::memory_order_acquire) == 0) return;
    relax();
  }
  pthread_mutex_lock(&mutex_);
  while (busy_.load(std::memory_order_acquire) != 0) pthread_cond_wait(&done_, &mutex_);
  pthread_mutex_unlock(&mutex_);
}

void Pool::take_tasks(int worker) {
  for (int task; (task = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) {
    body_(context_, task, worker);
  }
}

void Pool::serve(int worker) {
  uint32_t seen = 0;
  for (;;) {
    for (int look = 0; look < kLooks && round_.load(std::memory_order_acquire) == seen; ++look) {
      relax();
    }
    if (round_.load(std::memory_order_acquire) == seen) {
      pthread_mutex_lock(&mutex_);
      ++sleeping_;
      while (round_.load(std::memory_order_acquire) == seen) pthread_cond_wait(&work_, &mutex_);
      --sleeping_;
      pthread_mutex_unlock(&mutex_);
    }
    // A loop ends only when every worker has been through it, so that no round is missed.
    ++seen;
    pthread_mutex_lock(&mutex_);
    const bool ending = ending_;
    pthread_mutex_unlock(&mutex_);
    if (ending) return;
    take_tasks(worker);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      pthread_mutex_lock(&mutex_);
      pthread_cond_signal(&done_);
      pthread_mutex_unlock(&mutex_);
    }
  }
}

}  // namespace eosfm
