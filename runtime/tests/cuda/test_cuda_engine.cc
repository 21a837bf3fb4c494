// The CUDA engine behind libeosfm, on a stand-in for the driver:
//
//     test_cuda_engine STANDIN BUNDLE DB FLOAT_DB [STEP]
//
// The levels must be the CPU engine's to DB, and in float32 to FLOAT_DB. With a STEP, every STEPth call of
// the driver fails in turn, too.
#include <cmath>
#include <cstdlib>

#include "opened.h"

namespace {

double worst_snr(const TestLevels& expected, const TestLevels& got) {
  double worst = 999.0;
  for (int l = 0; l < EOSFM_LEVELS; ++l) {
    double signal = 0.0;
    double noise = 0.0;
    for (size_t i = 0; i < expected.buffers[l].size(); ++i) {
      if (expected.buffers[l][i] == TestLevels::kUntouched) continue;
      const double e = static_cast<double>(expected.buffers[l][i]);
      const double d = static_cast<double>(got.buffers[l][i]) - e;
      signal += e * e;
      noise += d * d;
    }
    const double snr = 10.0 * std::log10(signal / (noise + 1e-30));
    if (!(snr >= worst)) worst = snr;
  }
  return worst;
}

TestLevels levels_of(const char* backend) {
  Opened opened;
  CHECK(opened.create(backend, g_driver) == EOSFM_OK);
  CHECK(opened.context != nullptr && opened.uses(backend));
  if (opened.context == nullptr) {
    std::fprintf(stderr, "%s\n", eosfm_model_get_error(opened.model));
    std::exit(report());
  }
  return opened.run();
}

void it_computes_what_native_computes(double least, double least_exact) {
  const TestLevels expected = levels_of("native");
  const TestLevels got = levels_of("cuda");
  const TestLevels exact = levels_of("cuda-fp32");
  std::printf("%.1f dB, float32 %.1f dB\n", worst_snr(expected, got), worst_snr(expected, exact));
  CHECK(worst_snr(expected, got) >= least);
  CHECK(worst_snr(expected, exact) >= least_exact);
  reset();
  // Neither the order of threads nor the width of the GPU changes a bit.
  g_standin->schedule = 2;
  CHECK(got == levels_of("cuda"));
  reset();
  g_standin->multiprocessors = 132;
  CHECK(got == levels_of("cuda"));
  reset();
}

void one_graph_computes_image_after_image() {
  Opened opened;
  CHECK(opened.create("cuda", g_driver) == EOSFM_OK);
  const TestLevels first = opened.run();
  const int launches = g_standin->launches;
  const int calls = g_standin->calls;
  CHECK(first == opened.run());
  std::printf("%d launches an image\n", g_standin->launches - launches);
  CHECK(g_standin->calls - calls == 6);  // the graph, and asking twice whether it is done
}

struct Refusal {
  const char* backend;
  const char* driver;  // null: the stand-in
  void (*set)(Standin&);
  eosfm_status status;
  const char* words;
};

const Refusal kRefusals[] = {
    {"cuda", "/nowhere/libcuda.so.1", nullptr, EOSFM_NOT_FOUND, "there is no NVIDIA driver"},
    {"cuda", "libm.so.6", nullptr, EOSFM_UNSUPPORTED, "too old: libm.so.6 has no cuInit"},
    {"cuda", nullptr, [](Standin& s) { s.driver = 11040; }, EOSFM_UNSUPPORTED,
     "is for CUDA 11.4, expected 12.0"},
    {"cuda", nullptr, [](Standin& s) { s.devices = 0; }, EOSFM_UNSUPPORTED, "there is no GPU 0"},
    {"cuda-2", nullptr, [](Standin& s) { s.devices = 2; }, EOSFM_UNSUPPORTED,
     "there is no GPU 2: the NVIDIA driver has 2"},
    {"cuda", nullptr, [](Standin& s) { s.compute = 75; }, EOSFM_UNSUPPORTED,
     "no code for the Stand-in, of compute capability 7.5"},
    {"cuda", nullptr,
     [](Standin& s) {
  s.driver = 12020;
  s.compute = 120;
}, EOSFM_UNSUPPORTED, "no code for the Stand-in"},
    {"cuda", nullptr, [](Standin& s) { s.memory = 1000; }, EOSFM_NO_MEMORY, "memory, 0 of 0 MB are free"},
    {"cuda", nullptr, [](Standin& s) { s.most_shared = 4096; }, EOSFM_UNSUPPORTED, "bytes of shared memory"},
    {"cuda-fp64", nullptr, nullptr, EOSFM_BAD_ARGUMENT, "expected cuda, cuda-INDEX"},
    {"cuda-1x", nullptr, nullptr, EOSFM_BAD_ARGUMENT, "expected cuda, cuda-INDEX"},
};

void what_is_missing_is_said_and_the_ladder_goes_on() {
  for (const Refusal& one : kRefusals) {
    const char* driver = one.driver != nullptr ? one.driver : g_driver;
    if (one.set != nullptr) one.set(*g_standin);
    Opened alone;
    CHECK(alone.create(one.backend, driver) == one.status);
    CHECK(alone.context == nullptr);
    const char* text = eosfm_model_get_error(alone.model);
    CHECK(std::strstr(text, one.words) != nullptr);
    if (std::strstr(text, one.words) == nullptr) std::fprintf(stderr, "%s: %s\n", one.words, text);
    Opened ladder;
    CHECK(ladder.create((std::string(one.backend) + " native").c_str(), driver) == EOSFM_OK);
    CHECK(ladder.uses("native") && ladder.warnings.size() == 1);
    CHECK(ladder.warnings[0].find(one.words) != std::string::npos);
    reset();
  }
}

void code_is_chosen_for_the_gpu_and_the_driver() {
  for (const int compute : {80, 86, 87, 89, 90, 120}) {
    g_standin->compute = compute;
    Opened opened;
    CHECK(opened.create("cuda-0", g_driver) == EOSFM_OK);
  }
  reset();
}

// Each call of a context's life fails in turn, once or from there on as when a device is lost.
void every_call_may_fail(int step) {
  int total = 0;
  {
    Opened opened;
    CHECK(opened.create("cuda", g_driver) == EOSFM_OK);
    opened.run();
    total = g_standin->calls;
  }
  reset();
  int native = 0;
  int failed = 0;
  for (int call = 0; call < total; call += step) {
    for (const int count : {1, 1 << 20}) {
      g_standin->fail_at = call;
      g_standin->fail_count = count;
      g_standin->fail_with = 719;
      {
        Opened opened;
        CHECK(opened.create("cuda native", g_driver) == EOSFM_OK);
        if (opened.uses("native")) {
          ++native;
          CHECK(opened.warnings.size() == 1);
        } else {
          TestLevels out(opened.info, opened.info.tile, opened.info.tile);
          const eosfm_status status = opened.run(out);
          CHECK(status == EOSFM_ENGINE_FAILED);
          CHECK(out.wrong(false) == 0);
          CHECK(std::strstr(eosfm_context_get_error(opened.context), "unspecified launch failure") !=
                nullptr);
          ++failed;
          // Lost once, it may come back.
          if (count == 1) CHECK(opened.run(out) == EOSFM_OK);
        }
      }
      reset();
    }
  }
  CHECK(native > 0);
  CHECK(step > 1 || failed == 12);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  if (!load_standin(argv[1], argv[2])) return 2;
  it_computes_what_native_computes(std::atof(argv[3]), std::atof(argv[4]));
  one_graph_computes_image_after_image();
  reset();
  if (argc > 5) {
    what_is_missing_is_said_and_the_ladder_goes_on();
    code_is_chosen_for_the_gpu_and_the_driver();
    every_call_may_fail(std::atoi(argv[5]));
  }
  return report();
}
