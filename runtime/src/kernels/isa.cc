// Finds the instruction sets that this processor has, and their kernels.
#include "kernels/isa.h"

#include <string.h>

#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace eosfm {
namespace {

struct Candidate {
  const Kernels& (*table)();
  bool (*available)();
};

#if defined(__x86_64__)

// A register of CPUID; 0 where the processor has not the leaf.
enum Register : int { kEax = 0, kEbx, kEcx, kEdx };

unsigned cpuid(unsigned leaf, unsigned subleaf, Register index) {
  unsigned words[4] = {0, 0, 0, 0};
  return __get_cpuid_count(leaf, subleaf, &words[0], &words[1], &words[2], &words[3]) != 0 ? words[index] : 0;
}

// Returns whether the operating system saves all registers of a mask of XCR0.
bool saves(unsigned mask) {
  constexpr unsigned kOsXsave = 1U << 27;
  if ((cpuid(1, 0, kEcx) & kOsXsave) == 0) return false;
  unsigned low = 0;
  unsigned high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & mask) == mask;
}

// Bits of Intel's manual, volume 2A, CPUID. The compilers' __builtin_cpu_supports needs a constructor of their
// run-time library, which Zig's has not: it would find nothing.
bool has_avx2() {
  constexpr unsigned kFma = 1U << 12;
  constexpr unsigned kAvx2 = 1U << 5;
  constexpr unsigned kXmmYmm = 0x6;
  return (cpuid(1, 0, kEcx) & kFma) != 0 && (cpuid(7, 0, kEbx) & kAvx2) != 0 && saves(kXmmYmm);
}

bool has_avx512() {
  constexpr unsigned kF = 1U << 16;
  constexpr unsigned kDq = 1U << 17;
  constexpr unsigned kBw = 1U << 30;
  constexpr unsigned kVl = 1U << 31;
  constexpr unsigned kAll = kF | kDq | kBw | kVl;
  constexpr unsigned kMasksZmm = 0xe6;
  return has_avx2() && (cpuid(7, 0, kEbx) & kAll) == kAll && saves(kMasksZmm);
}

bool has_vnni() { return has_avx512() && (cpuid(7, 0, kEcx) & 1U << 11) != 0; }

bool has_bf16() { return has_vnni() && (cpuid(7, 1, kEax) & 1U << 5) != 0; }

#if defined(EOSFM_EMULATE_AMX)

bool has_amx() { return has_bf16(); }

#else

// Linux gives a process the AMX tiles only when it asks: they make its saved state larger.
bool ask_for_amx() {
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kAmxTileData = 18;
  constexpr unsigned kBf16 = 1U << 22;
  constexpr unsigned kAmxTile = 1U << 24;
  constexpr unsigned kInt8 = 1U << 25;
  constexpr unsigned kAll = kBf16 | kAmxTile | kInt8;
  return has_bf16() && (cpuid(7, 0, kEdx) & kAll) == kAll &&
         syscall(SYS_arch_prctl, kRequestPermission, kAmxTileData) == 0;
}

enum Answer : int { kNotAsked = 0, kNo, kYes };

// The list of the whole process. It needs no constructor and no lock: threads that fill it at once write the same.
std::atomic<int> g_amx{kNotAsked};

bool has_amx() {
  int answer = g_amx.load(std::memory_order_relaxed);
  if (answer == kNotAsked) {
    answer = ask_for_amx() ? kYes : kNo;
    g_amx.store(answer, std::memory_order_relaxed);
  }
  return answer == kYes;
}

#endif

constexpr Candidate kCandidates[] = {
    {amx_kernels, has_amx},       {avx512_bf16_kernels, has_bf16}, {avx512_vnni_kernels, has_vnni},
    {avx512_kernels, has_avx512}, {avx2_kernels, has_avx2},
};

#elif defined(__aarch64__)

constexpr unsigned long kHwcapAsimdDp = 1UL << 20;

bool has_dotprod() { return (getauxval(AT_HWCAP) & kHwcapAsimdDp) != 0; }

bool has_neon() { return true; }

constexpr Candidate kCandidates[] = {
    {neon_dotprod_kernels, has_dotprod},
    {neon_kernels, has_neon},
};

#else
#error "libeosfm has kernels for x86-64 and aarch64"
#endif

}  // namespace

const Kernels* available_kernels(int i) {
  for (const Candidate& candidate : kCandidates) {
    if (candidate.available() && i-- == 0) return &candidate.table();
  }
  return nullptr;
}

const Kernels* choose_kernels(const char* name) {
  if (name == nullptr || *name == '\0') return available_kernels(0);
  for (int i = 0; const Kernels* kernels = available_kernels(i); ++i) {
    if (strcmp(kernels->name, name) == 0) return kernels;
  }
  return nullptr;
}

}  // namespace eosfm
