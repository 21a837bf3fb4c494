// Every kernel on the CPU, against plain loops in double: test_cuda_kernels [SEEDS].
//
// Under three schedules with random shapes; then each barrier of the source is left out in turn, and
// the tests must notice.
#include <cstdlib>
#include <functional>
#include <string>

#include "../check.h"
#include "cases.h"

using namespace cases;

namespace {

struct Case {
  std::string name;
  std::function<double(unsigned, const shim::Options&)> run;  // dB above what is asked
};

const char* name_of(Kind kind) { return kind == kFloat ? "fp32" : kind == kHalf ? "fp16" : "int8"; }

std::vector<Case> fixed_cases() {
  std::vector<Case> all;
  const auto add_block = [&](const char* name, const BlockShape& s) {
    all.push_back({std::string("block ") + name + " " + name_of(s.fc1) + " " + name_of(s.fc2),
                   [s](unsigned seed, const shim::Options& o) { return block(s, seed, o); }});
  };
  for (const Kind kind : {kFloat, kHalf, kByte}) {
    add_block("of two spans", {13, 9, 40, 72, kind, kind, 32, 2, 5});
    add_block("of few pixels", {3, 2, 48, 304, kind, kind, 16, 1, 40});
  }
  add_block("of mixed precision", {9, 5, 24, 40, kByte, kHalf, 32, 1, 8});
  add_block("of mixed precision", {9, 5, 24, 40, kHalf, kByte, 8, 3, 8});
  for (const Kind kind : {kFloat, kHalf, kByte}) {
    const DownsampleShape s = {9, 5, 24, 56, kind, kind == kHalf ? 8 : 32, 2, 3};
    all.push_back({std::string("downsample ") + name_of(kind),
                   [s](unsigned seed, const shim::Options& o) { return downsample(s, seed, o); }});
  }
  for (const StemShape& s : {StemShape{9, 5, 3, 40, 2}, StemShape{8, 8, 13, 24, 1}}) {
    all.push_back({"stem of " + std::to_string(s.bands) + " bands",
                   [s](unsigned seed, const shim::Options& o) { return stem(s, seed, o); }});
  }
  const LevelShape levels[] = {
      {45, {40, 24, 72}, false, kFloat, 0, eosfm::gpu::kConcatenate, true},
      {45, {40, 40}, true, kFloat, 0, eosfm::gpu::kAdd, true},
      {64, {12, 12, 12}, false, kFloat, 0, eosfm::gpu::kMultiply, true},
      {45, {300, 24}, false, kHalf, 44, eosfm::gpu::kPlain, true},
      {33, {20, 9}, true, kFloat, 9, eosfm::gpu::kRelu, false},
      {33, {20}, false, kHalf, 12, eosfm::gpu::kLeakyRelu, false},
  };
  for (const LevelShape& s : levels) {
    all.push_back(
        {std::string(s.columns == 0 ? "combine" : "mix") + " of " + std::to_string(s.channels.size()),
         [s](unsigned seed, const shim::Options& o) { return level(s, seed, o); }});
  }
  return all;
}

Case random_case(Random& random) {
  const auto any_kind = [&] { return static_cast<Kind>(random.integer(0, 2)); };
  const int rows = 8 << random.integer(0, 2);
  const int most_tiles = rows > 16 ? 20 : 40;  // whose sums a thread block holds
  if (random.integer(0, 2) > 0) {
    const BlockShape s = {random.integer(1, 17),
                          random.integer(1, 11),
                          8 * random.integer(1, 12),
                          8 * random.integer(1, 40),
                          any_kind(),
                          any_kind(),
                          rows,
                          random.integer(1, 3),
                          random.integer(1, most_tiles)};
    return {"random block " + std::to_string(s.width) + " x " + std::to_string(s.height) + ", " +
                std::to_string(s.channels) + " to " + std::to_string(s.hidden) + ", " + name_of(s.fc1) + " " +
                name_of(s.fc2) + ", " + std::to_string(rows) + " rows",
            [s](unsigned seed, const shim::Options& o) { return block(s, seed, o); }};
  }
  const DownsampleShape s = {random.integer(1, 12),
                             random.integer(1, 9),
                             8 * random.integer(1, 12),
                             8 * random.integer(1, 16),
                             any_kind(),
                             rows,
                             random.integer(1, 3),
                             random.integer(1, most_tiles)};
  return {"random downsample " + std::to_string(s.width) + " x " + std::to_string(s.height) + ", " +
              std::to_string(s.in_channels) + " to " + std::to_string(s.channels) + ", " + name_of(s.kind) +
              ", " + std::to_string(rows) + " rows",
          [s](unsigned seed, const shim::Options& o) { return downsample(s, seed, o); }};
}

constexpr shim::Schedule kSchedules[] = {shim::Schedule::greedy, shim::Schedule::random,
                                         shim::Schedule::round_robin};

bool holds(const Case& one, unsigned seed) {
  shim::Options options;
  options.seed = seed;
  for (const shim::Schedule schedule : kSchedules) {
    options.schedule = schedule;
    const double margin = one.run(seed, options);
    if (margin >= 0.0) continue;
    std::fprintf(stderr, "%s, seed %u, schedule %d: %.1f dB less than asked\n", one.name.c_str(), seed,
                 static_cast<int>(schedule), -margin);
    return false;
  }
  return true;
}

// Whether any case fails under any schedule, each schedule over all cases: most faults show in the first.
bool is_noticed(const std::vector<Case>& cases, shim::Options options) {
  for (const shim::Schedule schedule : kSchedules) {
    options.schedule = schedule;
    for (const Case& one : cases) {
      if (one.run(1, options) < 0.0) return true;
    }
  }
  return false;
}

void every_kernel_is_right(const std::vector<Case>& cases, unsigned seeds) {
  for (const Case& one : cases) CHECK(holds(one, 1));
  Random random(7);
  for (unsigned seed = 1; seed <= seeds; ++seed) CHECK(holds(random_case(random), seed));
}

void a_barrier_left_out_is_noticed(const std::vector<Case>& cases) {
  const int barriers = eosfm_barrier_count();
  CHECK(barriers >= 10);
  for (int barrier = 0; barrier < barriers; ++barrier) {
    shim::Options options;
    options.skipped_barrier = barrier;
    const bool noticed = is_noticed(cases, options);
    if (!noticed) std::fprintf(stderr, "barrier %d is not missed\n", barrier);
    CHECK(noticed);
  }
}

void a_wrong_fragment_is_noticed(const std::vector<Case>& cases) {
  shim::Options options;
  options.swaps_fragments = true;
  for (const Case& one : cases) {
    const bool uses_mma = one.name.find("block") == 0 && one.name.find("fp32 fp32") == std::string::npos;
    if (uses_mma) CHECK(is_noticed({one}, options));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<Case> cases = fixed_cases();
  every_kernel_is_right(cases, argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 6);
  a_barrier_left_out_is_noticed(cases);
  a_wrong_fragment_is_noticed(cases);
  return report();
}
