#include "shim.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace shim {
namespace {

constexpr size_t kStackBytes = 256 << 10;
constexpr unsigned kLanes = 32;
constexpr unsigned kMostThreads = 1024;

// What a fiber waits for. Ready fibers wait for nothing.
enum class State { ready, at_barrier, at_exchange, done };

struct Fiber {
  void* stack_pointer = nullptr;
  char* stack = nullptr;
  void* fake_stack = nullptr;  // of the address sanitizer
  State state = State::done;
  Dim index;
};

// A set of threads.
class Threads {
 public:
  void add(unsigned i) { words_[i / 64] |= uint64_t{1} << i % 64; }
  void remove(unsigned i) { words_[i / 64] &= ~(uint64_t{1} << i % 64); }
  // The first from `from` on, around the end; -1: there is none.
  int next(unsigned from) const {
    for (unsigned turn = 0; turn <= kWords; ++turn) {
      const unsigned word = (from / 64 + turn) % kWords;
      uint64_t bits = words_[word];
      if (turn == 0) bits &= ~uint64_t{0} << from % 64;
      if (bits != 0) return static_cast<int>(word * 64) + __builtin_ctzll(bits);
    }
    return -1;
  }
  int highest() const {
    for (unsigned word = kWords; word-- > 0;) {
      if (words_[word] != 0) return static_cast<int>(word * 64 + 63) - __builtin_clzll(words_[word]);
    }
    return -1;
  }

 private:
  static constexpr unsigned kWords = kMostThreads / 64;
  uint64_t words_[kWords] = {};
};

// What the lanes of a warp hand in, and take out when all have come.
struct Exchange {
  unsigned arrived = 0;
  unsigned in[kLanes][10];
  unsigned out[kLanes][4];
};

enum class Action { none, shuffle, halves, bytes };

struct Machine {
  Launch launch;
  Options options;
  const std::function<void()>* kernel = nullptr;
  std::vector<Fiber> fibers;
  Threads ready;
  std::vector<Exchange> exchanges;
  std::vector<unsigned> shared;
  Dim block;
  unsigned current = 0;
  void* scheduler = nullptr;
  void* scheduler_fake_stack = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_size = 0;
  uint32_t random = 1;
};

Machine g_machine;

extern "C" void shim_switch(void** from, void* to);
extern "C" void shim_enter();

#if defined(__x86_64__)
asm(R"(
.pushsection .text
.globl shim_switch
.hidden shim_switch
.type shim_switch, @function
shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size shim_switch, .-shim_switch
.popsection
)");
constexpr size_t kSavedWords = 6;
constexpr size_t kReturnWord = 6;
constexpr size_t kFrameWords = 8;
#elif defined(__aarch64__)
asm(R"(
.pushsection .text
.globl shim_switch
.hidden shim_switch
.type shim_switch, %function
shim_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size shim_switch, .-shim_switch
.popsection
)");
constexpr size_t kReturnWord = 11;
constexpr size_t kFrameWords = 20;
#else
#error "fibers switch in assembly, which is here for x86-64 and aarch64"
#endif

void to_scheduler() {
  Machine& m = g_machine;
  Fiber& self = m.fibers[m.current];
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(self.state == State::done ? nullptr : &self.fake_stack, m.scheduler_stack,
                                 m.scheduler_stack_size);
#endif
  shim_switch(&self.stack_pointer, m.scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(self.fake_stack, nullptr, nullptr);
#endif
}

void to_fiber(unsigned index) {
  Machine& m = g_machine;
  m.current = index;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&m.scheduler_fake_stack, m.fibers[index].stack, kStackBytes);
#endif
  shim_switch(&m.scheduler, m.fibers[index].stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(m.scheduler_fake_stack, nullptr, nullptr);
#endif
}

// Changes what the fiber that runs waits for.
void wait(State state) {
  Machine& m = g_machine;
  m.fibers[m.current].state = state;
  m.ready.remove(m.current);
}

void wake(unsigned index) {
  g_machine.fibers[index].state = State::ready;
  g_machine.ready.add(index);
}

// The first function of every fiber.
extern "C" void shim_enter() {
  Machine& m = g_machine;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &m.scheduler_stack, &m.scheduler_stack_size);
#endif
  (*m.kernel)();
  wait(State::done);
  to_scheduler();
  std::abort();
}

void start(Fiber& fiber) {
  auto* top = reinterpret_cast<uintptr_t*>(fiber.stack + kStackBytes) - 2;
  uintptr_t* frame = top - kFrameWords;
  std::memset(frame, 0, kFrameWords * sizeof *frame);
  frame[kReturnWord] = reinterpret_cast<uintptr_t>(&shim_enter);
  fiber.stack_pointer = frame;
}

uint32_t next_random() {
  uint32_t& x = g_machine.random;
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  return x;
}

// The thread that runs next; -1: none is ready.
int choose(unsigned last) {
  Machine& m = g_machine;
  switch (m.options.schedule) {
    case Schedule::greedy: return m.ready.highest();
    case Schedule::random: return m.ready.next(next_random() % m.launch.threads);
    case Schedule::round_robin: return m.ready.next((last + 1) % m.launch.threads);
  }
  return -1;
}

// Lets those go on who wait for a barrier to which all have come.
bool open_barrier() {
  Machine& m = g_machine;
  for (const Fiber& fiber : m.fibers) {
    if (fiber.state == State::ready || fiber.state == State::at_exchange) return false;
  }
  bool any = false;
  for (unsigned i = 0; i < m.launch.threads; ++i) {
    if (m.fibers[i].state != State::at_barrier) continue;
    wake(i);
    any = true;
  }
  return any;
}

bool run_block() {
  Machine& m = g_machine;
  std::memset(m.shared.data(), 0xff, m.shared.size() * sizeof(unsigned));  // NaN
  for (Exchange& exchange : m.exchanges) exchange.arrived = 0;
  for (unsigned i = 0; i < m.launch.threads; ++i) {
    start(m.fibers[i]);
    wake(i);
  }
  unsigned last = m.launch.threads - 1;
  for (;;) {
    const int next = choose(last);
    if (next >= 0) {
      last = static_cast<unsigned>(next);
      to_fiber(last);
    } else if (!open_barrier()) {
      break;
    }
  }
  for (const Fiber& fiber : m.fibers) {
    if (fiber.state != State::done) return false;
  }
  return true;
}

float value_of(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

unsigned word_of(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// PTX ISA, "Matrix fragments for mma.m16n8k16" and "mma.m16n8k32": with 8 words of k in a row, lane
// 4 g + t holds words t and t + 4 of rows g and g + 8 of A, and of column g of B. `unpack` makes values of
// a word.
template <class Sum, int kPer, class Unpack>
void multiply(Exchange& x, const Unpack& unpack) {
  constexpr unsigned kDepth = 8 * kPer;
  Sum a[16][kDepth];
  Sum b[8][kDepth];
  for (unsigned k = 0; k < 8; ++k) {
    for (unsigned row = 0; row < 16; ++row) {
      unpack(x.in[row % 8 * 4 + k % 4][4 + row / 8 + k / 4 * 2], &a[row][k * kPer]);
    }
    for (unsigned n = 0; n < 8; ++n) unpack(x.in[n * 4 + k % 4][8 + k / 4], &b[n][k * kPer]);
  }
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    for (unsigned i = 0; i < 4; ++i) {
      Sum sum;
      std::memcpy(&sum, &x.in[lane][i], sizeof sum);
      const Sum* row = a[lane / 4 + i / 2 * 8];
      const Sum* column = b[lane % 4 * 2 + i % 2];
      for (unsigned k = 0; k < kDepth; ++k) sum += row[k] * column[k];
      std::memcpy(&x.out[lane][i], &sum, sizeof sum);
    }
  }
}

void act(Exchange& x, Action action) {
  switch (action) {
    case Action::none: return;
    case Action::shuffle:
      for (unsigned lane = 0; lane < kLanes; ++lane) x.out[lane][0] = x.in[lane ^ x.in[lane][1]][0];
      return;
    case Action::halves:
      return multiply<float, 2>(x, [](unsigned word, float* to) {
        to[0] = eosfm::float_of_half(word & 0xffffU);
        to[1] = eosfm::float_of_half(word >> 16);
      });
    case Action::bytes:
      return multiply<int, 4>(x, [](unsigned word, int* to) {
        for (int i = 0; i < 4; ++i) to[i] = static_cast<int8_t>(word >> 8 * i & 0xffU);
      });
  }
}

// Waits for all lanes of the warp; the last to come does what they came for.
Exchange& meet(const unsigned* in, size_t count, Action action) {
  Machine& m = g_machine;
  const unsigned self = m.current;
  Exchange& x = m.exchanges[self / kLanes];
  for (size_t i = 0; i < count; ++i) x.in[self % kLanes][i] = in[i];
  wait(State::at_exchange);
  if (++x.arrived == kLanes) {
    act(x, action);
    x.arrived = 0;
    const unsigned first = self / kLanes * kLanes;
    for (unsigned i = first; i < first + kLanes; ++i) wake(i);
  }
  to_scheduler();
  return x;
}

}  // namespace

bool run(const Launch& launch, const Options& options, const std::function<void()>& kernel) {
  Machine& m = g_machine;
  if (launch.threads == 0 || launch.threads > kMostThreads || launch.threads % kLanes != 0) return false;
  m.launch = launch;
  m.options = options;
  m.kernel = &kernel;
  m.random = options.seed | 1U;
  m.fibers.resize(launch.threads);
  m.exchanges.resize((launch.threads + kLanes - 1) / kLanes);
  m.shared.assign(launch.shared_bytes / sizeof(unsigned) + 4, 0U);
  for (unsigned i = 0; i < launch.threads; ++i) {
    m.fibers[i].index = {i, 0, 0};
    if (m.fibers[i].stack != nullptr) continue;
    void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) std::abort();
    m.fibers[i].stack = static_cast<char*>(stack);
  }
  bool finished = true;
  for (m.block.z = 0; m.block.z < launch.grid.z; ++m.block.z) {
    for (m.block.y = 0; m.block.y < launch.grid.y; ++m.block.y) {
      for (m.block.x = 0; m.block.x < launch.grid.x; ++m.block.x) finished = run_block() && finished;
    }
  }
  return finished;
}

const Dim& thread_index() { return g_machine.fibers[g_machine.current].index; }
const Dim& block_index() { return g_machine.block; }

unsigned* shared_words() {
  const auto at = reinterpret_cast<uintptr_t>(g_machine.shared.data());
  return reinterpret_cast<unsigned*>((at + 15) / 16 * 16);
}

void sync_threads(int barrier) {
  if (barrier == g_machine.options.skipped_barrier) return;
  wait(State::at_barrier);
  to_scheduler();
}

void sync_warp(int barrier) {
  if (barrier == g_machine.options.skipped_barrier) return;
  meet(nullptr, 0, Action::none);
}

float shuffle_xor(float value, int lanes) {
  const unsigned in[2] = {word_of(value), static_cast<unsigned>(lanes)};
  const unsigned lane = g_machine.current % kLanes;
  return value_of(meet(in, 2, Action::shuffle).out[lane][0]);
}

namespace {

template <class Sum>
void mma_of(Sum (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, Action action) {
  unsigned in[10];
  std::memcpy(in, d, sizeof d);
  const bool swaps = g_machine.options.swaps_fragments;
  in[4] = a[0];
  in[5] = a[swaps ? 2 : 1];
  in[6] = a[swaps ? 1 : 2];
  in[7] = a[3];
  in[8] = b0;
  in[9] = b1;
  const unsigned lane = g_machine.current % kLanes;
  std::memcpy(d, meet(in, 10, action).out[lane], sizeof d);
}

}  // namespace

void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  mma_of(d, a, b0, b1, Action::halves);
}

void mma(int (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  mma_of(d, a, b0, b1, Action::bytes);
}

}  // namespace shim
