#include "settings.h"

#include "engine_names.h"
#include "image.h"
#include "processors.h"
#include "structs.h"

namespace eosfm {
namespace {

constexpr int kMostThreads = 256;
constexpr int kMostBatch = 64;

}  // namespace

eosfm_status Settings::set(const eosfm_context_options* options, const Chain& chain, ErrorText& error) {
  eosfm_context_options given;
  eosfm_status status = read_options(options, &given, error);
  if (status != EOSFM_OK) return status;
  if (given.threads < 0 || given.threads > kMostThreads) {
    return error.fail(EOSFM_BAD_ARGUMENT, "threads is %d, expected 0 to %d", given.threads, kMostThreads);
  }
  if (given.precision != EOSFM_AS_STORED && given.precision != EOSFM_BF16) {
    return error.fail(EOSFM_BAD_ARGUMENT, "precision is %d, which is not known", given.precision);
  }
  if (given.batch < 0 || given.batch > kMostBatch) {
    return error.fail(EOSFM_BAD_ARGUMENT, "batch is %d, expected 0 to %d", given.batch, kMostBatch);
  }
  threads = given.threads > 0 ? given.threads : processors(kMostThreads);
  precision = static_cast<eosfm_precision>(given.precision);
  width = given.width != 0 ? given.width : chain.tile;
  height = given.height != 0 ? given.height : chain.tile;
  memory_limit = given.memory_limit;
  backend_library = given.backend_library;
  batch = given.batch;
  thread_hook = {given.thread_started, given.thread_user};
  status = set_engines(given, error);
  if (status == EOSFM_OK) status = set_gate(given, chain, error);
  if (status != EOSFM_OK) return status;
  const auto fits = [](int side) { return side >= 32 && side <= kMostSide && side % 32 == 0; };
  if (fits(width) && fits(height)) return EOSFM_OK;
  return error.fail(EOSFM_BAD_ARGUMENT,
                    "the image is %d x %d, expected sides that are multiples of "
                    "32 up to %d",
                    width, height, kMostSide);
}

eosfm_status Settings::set_engines(const eosfm_context_options& given, ErrorText& error) {
  if (given.engine != nullptr) {
    const eosfm_status status = read_options(given.engine, &host, error);
    if (status != EOSFM_OK) return status;
    if (host.compute == nullptr) {
      return error.fail(EOSFM_BAD_ARGUMENT, "the engine has no function that computes");
    }
    if (host.name == nullptr) host.name = "host";
    if (!is_host_engine_name(host.name)) {
      return error.fail(EOSFM_BAD_ARGUMENT,
                        "the engine's name is '%.100s', expected small letters, digits "
                        "and '-', and not '%s'",
                        host.name, kNative);
    }
  }
  backends = given.backends != nullptr ? given.backends : host.compute == nullptr ? kNative : nullptr;
  if (given.backends != nullptr && !are_engine_names(backends)) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "the backends are '%.100s', expected names of small letters, "
                      "digits and '-' with spaces between",
                      backends);
  }
  if (given.backends != nullptr && host.compute != nullptr && !names_engine(backends, host.name)) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "the backends are '%.100s', expected the name of the engine "
                      "that is given, '%s', among them",
                      backends, host.name);
  }
  return EOSFM_OK;
}

eosfm_status Settings::set_gate(const eosfm_context_options& given, const Chain& chain, ErrorText& error) {
  if (given.gate == nullptr) return EOSFM_OK;
  const eosfm_status status = read_options(given.gate, &gate, error);
  if (status != EOSFM_OK) return status;
  if (gate.open == nullptr || gate.specialist < 0 || gate.specialist >= chain.specialists.size()) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "the gate is specialist %d of %d, or has no function that "
                      "decides",
                      gate.specialist, chain.specialists.size());
  }
  if (given.engine != nullptr || chain.fusion == Fusion::multiplication) {
    return error.fail(
        EOSFM_UNSUPPORTED, "a gate leaves specialists out, which %s",
        given.engine != nullptr ? "the host's engine cannot" : "makes a fusion by products zero everywhere");
  }
  return EOSFM_OK;
}

}  // namespace eosfm
