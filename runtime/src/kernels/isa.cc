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

// gcc's and clang's test includes that the operating system saves the registers.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

bool has_bf16() { return has_vnni() && __builtin_cpu_supports("avx512bf16"); }

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
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return has_bf16() && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 &&
         (edx & (kBf16 | kAmxTile | kInt8)) == (kBf16 | kAmxTile | kInt8) &&
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
