// One model, two contexts in two threads: two_contexts NAME.eosfm. Both run the bundle's known answer
// ten times; prints what each found.
#include <eosfm.h>

#include <cstdio>
#include <memory>
#include <thread>

namespace {

struct Close {
  void operator()(eosfm_model* model) const { eosfm_model_close(model); }
  void operator()(eosfm_context* context) const { eosfm_context_destroy(context); }
};
using Model = std::unique_ptr<eosfm_model, Close>;
using Context = std::unique_ptr<eosfm_context, Close>;

struct Result {
  eosfm_status status = EOSFM_OK;
  double worst[EOSFM_LEVELS] = {};
};

// A context belongs to the thread that makes it; the model is everybody's.
void work(eosfm_model* model, Result* result) {
  eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;
  options.threads = 1;
  eosfm_context* made = nullptr;
  result->status = eosfm_context_create(model, &options, &made);
  const Context context(made);
  for (int i = 0; i < 10 && result->status == EOSFM_OK; ++i) {
    result->status = eosfm_context_verify(context.get(), result->worst);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: two_contexts NAME.eosfm\n");
    return 2;
  }
  char error[256] = "";
  eosfm_open_options options = EOSFM_OPEN_OPTIONS_INIT;
  options.error = error;
  options.error_size = sizeof error;
  eosfm_model* opened = nullptr;
  if (eosfm_model_open(argv[1], &options, &opened) != EOSFM_OK) {
    std::fprintf(stderr, "two_contexts: %s\n", error);
    return 1;
  }
  const Model model(opened);
  Result results[2];
  std::thread first(work, model.get(), &results[0]);
  std::thread second(work, model.get(), &results[1]);
  first.join();
  second.join();
  bool same = true;
  for (const Result& result : results) {
    std::printf("%s:", eosfm_status_get_text(result.status));
    for (int l = 0; l < EOSFM_LEVELS; ++l) {
      std::printf(" %.17g", result.worst[l]);
      same = same && result.worst[l] == results[0].worst[l];
    }
    std::printf("\n");
    same = same && result.status == EOSFM_OK;
  }
  return same ? 0 : 1;
}
