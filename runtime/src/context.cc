#include "context.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cells.h"
#include "finite.h"
#include "ladder.h"
#include "processors.h"
#include "structs.h"

namespace eosfm {
namespace {

constexpr int kMostThreads = 256;
constexpr int kMostBatch = 64;

size_t larger(size_t a, size_t b) { return a > b ? a : b; }

// Lets others have the processor between two looks at a device: at once if it may be done any moment, and
// longer where it takes long.
void rest_since(int64_t began) {
  constexpr int64_t kSpin = 2000000;  // ns
  if (monotonic_ns() - began < kSpin) {
    sched_yield();
    return;
  }
  const timespec pause = {0, 100000};
  nanosleep(&pause, nullptr);
}

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
  if (given.engine != nullptr) {
    status = read_options(given.engine, &engine, error);
    if (status != EOSFM_OK) return status;
    if (engine.compute == nullptr) {
      return error.fail(EOSFM_BAD_ARGUMENT, "the engine has no function that computes");
    }
    if (engine.name == nullptr) engine.name = "host";
    if (!is_engine_name(engine.name)) {
      return error.fail(EOSFM_BAD_ARGUMENT,
                        "the engine's name is '%.100s', expected small letters, digits "
                        "and '-', and not '%s'",
                        engine.name, kNative);
    }
  }
  backends = given.backends != nullptr ? given.backends : engine.compute == nullptr ? kNative : nullptr;
  if (given.backends != nullptr && !are_backends(backends)) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "the backends are '%.100s', expected names of small letters, "
                      "digits and '-' with spaces between",
                      backends);
  }
  if (given.backends != nullptr && engine.compute != nullptr && !names_backend(backends, engine.name)) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "the backends are '%.100s', expected the name of the engine "
                      "that is given, '%s', among them",
                      backends, engine.name);
  }
  if (given.gate != nullptr) {
    status = read_options(given.gate, &gate, error);
    if (status != EOSFM_OK) return status;
    if (gate.open == nullptr || gate.specialist < 0 || gate.specialist >= chain.specialists.size()) {
      return error.fail(EOSFM_BAD_ARGUMENT,
                        "the gate is specialist %d of %d, or has no function that "
                        "decides",
                        gate.specialist, chain.specialists.size());
    }
    if (given.engine != nullptr || chain.fusion == Fusion::multiplication) {
      return error.fail(EOSFM_UNSUPPORTED, "a gate leaves specialists out, which %s",
                        given.engine != nullptr ? "the host's engine cannot"
                                                : "makes a fusion by products zero everywhere");
    }
  }
  const auto fits = [](int side) { return side >= 32 && side <= kMostSide && side % 32 == 0; };
  if (fits(width) && fits(height)) return EOSFM_OK;
  return error.fail(EOSFM_BAD_ARGUMENT,
                    "the image is %d x %d, expected sides that are multiples of "
                    "32 up to %d",
                    width, height, kMostSide);
}

void ContextMemory::lay_out(Layout& layout, const Settings& settings, const Chain& chain,
                            const PackedModel& packed, const Kernels& kernels) {
  const size_t pixels = static_cast<size_t>(settings.width) * settings.height;
  planes = layout.take<float>(pixels * chain.bands.size());
  valid = layout.take<uint8_t>(pixels);
  for (int level = 0; level < kLevels; ++level) {
    shares[level] = layout.take<float>(pixels >> (2 * level + 4));
  }
  run_planes = layout.take<const float*>(static_cast<size_t>(chain.run_bands.size()));

  Extent extent;
  for (const NetworkWeights& network : packed.networks) {
    extent.include(network, kernels, settings.width, settings.height);
  }
  size_t most_strips = 0;
  size_t widest = 0;
  for (int level = 0; level < kLevels; ++level) {
    const Grid grid(cells(settings.width, level), cells(settings.height, level));
    const size_t strip = static_cast<size_t>(grid.strip_rows) * grid.width + kRowPadding;
    const size_t lanes = static_cast<size_t>(kernels.lanes);
    const Matrix& first = packed.chain.first[level];
    const Matrix& second = packed.chain.second[level];
    features[level] = layout.take<char>((static_cast<size_t>(grid.pixels()) + kRowPadding) *
                                        row_bytes(packed.chain.columns[level], packed.chain.storage));
    extent.wide = larger(extent.wide, strip * lanes * (first.vectors + second.vectors));
    extent.wide = larger(extent.wide, strip * round_up(chain.level_channels[level], lanes));
    extent.rows = larger(extent.rows, strip * row_bytes(first.vectors * kernels.lanes, Storage::f32));
    most_strips = larger(most_strips, static_cast<size_t>(grid.strips));
    for (const NetworkWeights& network : packed.networks) {
      const size_t padded = static_cast<size_t>(network.stages[level].padded);
      widest = larger(widest, padded);
      extent.rows = larger(extent.rows, strip * row_bytes(static_cast<int>(padded), Storage::f32));
    }
    for (const SetWeights& set : packed.chain.sets[level]) {
      extent.wide = larger(extent.wide, strip * set.padded);
    }
  }

  const size_t workers_count = static_cast<size_t>(settings.threads);
  const size_t runs = static_cast<size_t>(chain.runs.size());
  const size_t passes_count = workers_count < runs ? workers_count : runs;
  passes = layout.take<PassMemory>(passes_count);
  sets = layout.take<SetMemory>(passes_count);
  workers = layout.take<WorkerMemory>(workers_count);
  for (size_t i = 0; i < passes_count; ++i) {
    const PassMemory pass = take_pass(layout, extent);
    const SetMemory set = {layout.take<double>(2 * most_strips), layout.take<float>(widest),
                           layout.take<float>(widest)};
    if (passes != nullptr) passes[i] = pass;
    if (sets != nullptr) sets[i] = set;
  }
  for (int level = 0; settings.gate.open != nullptr && level < kLevels; ++level) {
    levels[level] =
        layout.take<float>(static_cast<size_t>(chain.set_channels(settings.gate.specialist, level)) *
                           cells(settings.width, level) * cells(settings.height, level));
  }
  sums = layout.take<GatheredSums>(runs);
  for (size_t r = 0; r < runs; ++r) {
    const int specialist = chain.runs[static_cast<int>(r)].specialist;
    const size_t count = hidden_channels(packed.networks[specialist]);
    const GatheredSums one = {layout.take<double>(count), layout.take<double>(count), count, false};
    if (sums != nullptr) sums[r] = one;
  }
  times = layout.take<RunTime>(runs);
  for (size_t i = 0; i < workers_count; ++i) {
    const WorkerMemory worker = take_worker(layout, extent);
    if (workers != nullptr) workers[i] = worker;
  }
}

void ContextMemory::lay_out(Layout& layout, const Settings& settings, const Chain& chain, int slots) {
  const size_t pixels = static_cast<size_t>(settings.width) * settings.height;
  valid = layout.take<uint8_t>(pixels);
  if (slots > 0) return;  // images and levels lie in the backend's memory
  planes = layout.take<float>(pixels * chain.bands.size());
  for (int level = 0; level < kLevels; ++level) {
    levels[level] = layout.take<float>(static_cast<size_t>(chain.level_channels[level]) *
                                       cells(settings.width, level) * cells(settings.height, level));
  }
}

namespace {

// The context itself, and its lists.
size_t bookkeeping_bytes(const Settings& settings, const Chain& chain, int slots) {
  const int specialists = chain.specialists.size();
  const int runs = chain.runs.size();
  return bytes_of<eosfm_context>() + Pool::bytes(settings.threads) + 2 * bytes_of<uint8_t>(specialists) +
         bytes_of<int>(runs) + bytes_of<uint8_t>(runs) + bytes_of<bool>(slots);
}

}  // namespace

size_t context_bytes(const Settings& settings, const Chain& chain, const PackedModel& packed,
                     const Kernels& kernels) {
  Layout layout;
  ContextMemory memory = {};
  memory.lay_out(layout, settings, chain, packed, kernels);
  return layout.size() + bookkeeping_bytes(settings, chain, 0);
}

size_t context_bytes(const Settings& settings, const Chain& chain, int slots) {
  Layout layout;
  ContextMemory memory = {};
  memory.lay_out(layout, settings, chain, slots);
  return layout.size() + bookkeeping_bytes(settings, chain, slots);
}

}  // namespace eosfm

using namespace eosfm;

eosfm_context::~eosfm_context() {
  // Of a run that a callback has left, by a jump or an exception, threads may be going on.
  stop_.request(Stop::kCancelled);
  pthread_mutex_destroy(&cancel_mutex_);
}

eosfm_status eosfm_context::enter() {
  // No sentence: it would be written while the other call may write its own.
  if (busy_.exchange(true, std::memory_order_acquire)) return EOSFM_BUSY;
  if (pool_.is_here()) return EOSFM_OK;
  leave();
  return error.fail(EOSFM_BAD_ARGUMENT, "the context is of the process that this one was forked from, "
                                        "where its threads are: create another here");
}

eosfm_status eosfm_context::create(eosfm_model* model, const Settings& settings, const char* backend,
                                   ErrorText& text) {
  model_ = model;
  settings_ = settings;
  tolerance_ = model->chain.tolerance;
  const bool is_other = backend != nullptr && strcmp(backend, kNative) != 0;
  eosfm_status status = EOSFM_OK;
  snprintf(backend_name_, sizeof backend_name_, "%s", backend != nullptr ? backend : settings.engine.name);
  if (backend == nullptr) {
    tolerance_ = engine_tolerance();
  } else if (is_other) {
    status = open_backend(backend, text);
  } else {
    settings_.engine = EOSFM_ENGINE_INIT;
  }
  if (status == EOSFM_OK) status = make_memory(text);
  if (status != EOSFM_OK) return status;
  for (uint8_t& one : active_) one = 1;
  active_count_ = active_.size();
  const int failure = pool_.start(model->memory.allocator(), settings.threads, settings.thread_hook);
  if (failure != 0) return text.with_code(failure, text.no_memory("the context's threads"));
  if (!is_other) return EOSFM_OK;
  double worst[kLevels];
  status = verify(worst);
  if (status != EOSFM_OK) text = error;
  statistics_ = StructOf<eosfm_statistics>::defaults();
  return status;
}

// A host's engine computes what the graphs do, as a rule from them.
const float* eosfm_context::engine_tolerance() const {
  const Chain& chain = model_->chain;
  return chain.graphs.size() > 0 ? chain.graph_tolerance : chain.tolerance;
}

// Has a backend or the host's engine compute, if it can what the settings ask for.
eosfm_status eosfm_context::open_backend(const char* name, ErrorText& text) {
  const Chain& chain = model_->chain;
  if (settings_.width != chain.tile || settings_.height != chain.tile) {
    return text.fail(EOSFM_UNSUPPORTED, "it runs images of the bundle's %d x %d pixels, not %d x %d",
                     chain.tile, chain.tile, settings_.width, settings_.height);
  }
  if (settings_.precision != EOSFM_AS_STORED || settings_.gate.open != nullptr) {
    return text.fail(EOSFM_UNSUPPORTED, "it computes all specialists, as the bundle's graphs are: there "
                                        "is no gate, and no other precision");
  }
  if (settings_.engine.compute != nullptr && strcmp(name, settings_.engine.name) == 0) {
    tolerance_ = engine_tolerance();
    return EOSFM_OK;
  }
  const eosfm_status status = backend_.open(name, *model_, settings_, text);
  settings_.engine = backend_.engine();
  batches_ = backend_.batches();
  tolerance_ = backend_.tolerance();
  return status;
}

eosfm_status eosfm_context::make_memory(ErrorText& text) {
  const Chain& chain = model_->chain;
  eosfm_status status = EOSFM_OK;
  size_t needed = 0;
  size_t weights = 0;
  if (has_engine()) {
    needed = context_bytes(settings_, chain, batches_.slots);
  } else {
    PackedModel shapes;  // gone before anything large is taken
    status = model_->shape(settings_.precision, &shapes, text);
    if (status != EOSFM_OK) return status;
    needed = context_bytes(settings_, chain, shapes, *model_->kernels);
    weights = shapes.bytes;
  }
  const size_t backends = backend_.reserved_bytes();
  if (settings_.memory_limit != 0 && needed + weights + backends > settings_.memory_limit) {
    return text.fail(EOSFM_NO_MEMORY,
                     "the context needs %zu bytes, its weights %zu and its backend %zu, the "
                     "limit is %zu; fewer threads or smaller images need less",
                     needed, weights, backends, settings_.memory_limit);
  }
  status = model_->check_room(settings_.precision, weights, needed - bytes_of<eosfm_context>(), text);
  if (status != EOSFM_OK) return status;
  if (!has_engine()) status = model_->packed(settings_.precision, &packed_, text);
  if (status != EOSFM_OK) return status;
  const int specialists = model_->specialists.size();
  const eosfm_allocator& allocator = model_->memory.allocator();
  const size_t laid_out = needed - bookkeeping_bytes(settings_, chain, batches_.slots);
  if (!span_.allocate(allocator, laid_out) || !active_.allocate(allocator, specialists) ||
      !active_runs_.allocate(allocator, chain.runs.size()) ||
      !run_done_.allocate(allocator, chain.runs.size()) || !present_.allocate(allocator, specialists) ||
      !under_way_.allocate(allocator, batches_.slots)) {
    return text.no_memory("the context");
  }
  Layout layout(span_.data());
  if (has_engine()) {
    memory_.lay_out(layout, settings_, chain, batches_.slots);
    return EOSFM_OK;
  }
  memory_.lay_out(layout, settings_, chain, *packed_, *model_->kernels);
  const size_t plane = static_cast<size_t>(settings_.width) * settings_.height;
  for (int i = 0; i < chain.run_bands.size(); ++i) {
    memory_.run_planes[i] = memory_.planes + plane * chain.run_bands[i];
  }
  return EOSFM_OK;
}

void eosfm_context::resume() {
  pthread_mutex_lock(&cancel_mutex_);
  cancelled_ = false;
  pthread_mutex_unlock(&cancel_mutex_);
}

void eosfm_context::cancel() {
  pthread_mutex_lock(&cancel_mutex_);
  cancelled_ = true;
  if (running_) {
    stop_.request(Stop::kCancelled);
    if (settings_.engine.cancel != nullptr) settings_.engine.cancel(settings_.engine.user);
  }
  pthread_mutex_unlock(&cancel_mutex_);
}

eosfm_status eosfm_context::set_active(const uint8_t* active, size_t count) {
  if (active == nullptr || count != static_cast<size_t>(active_.size())) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "%zu flags are given, expected one for each of %d "
                      "specialists",
                      count, active_.size());
  }
  int wanted = 0;
  for (size_t i = 0; i < count; ++i) wanted += active[i] != 0 ? 1 : 0;
  if (wanted == 0) return error.fail(EOSFM_BAD_ARGUMENT, "no specialist is active");
  if (wanted < active_.size() && has_engine()) {
    return error.fail(EOSFM_UNSUPPORTED, "the engine (%s) runs all specialists", backend_name_);
  }
  if (wanted < active_.size() && model_->chain.fusion == Fusion::multiplication) {
    return error.fail(EOSFM_UNSUPPORTED, "the fusion is a product: it is zero everywhere as soon as a "
                                         "specialist is not active");
  }
  if (grn_ == EOSFM_GRN_SCENE) {
    const eosfm_status status = check_gathered(active);
    if (status != EOSFM_OK) return status;
  }
  for (size_t i = 0; i < count; ++i) active_[static_cast<int>(i)] = active[i] != 0 ? 1 : 0;
  active_count_ = wanted;
  return EOSFM_OK;
}

eosfm_status eosfm_context::set_grn(eosfm_grn mode) {
  eosfm_status status = EOSFM_OK;
  if (has_engine() && mode != EOSFM_GRN_TILE) {
    return error.fail(EOSFM_UNSUPPORTED, "the engine (%s) takes GRN's norms over each image", backend_name_);
  }
  switch (mode) {
    case EOSFM_GRN_TILE: break;
    case EOSFM_GRN_GATHER: forget_gathered(); break;
    case EOSFM_GRN_SCENE: status = check_gathered(active_.begin()); break;
    default:
      status =
          error.fail(EOSFM_BAD_ARGUMENT, "the mode of GRN is %d, which is not known", static_cast<int>(mode));
  }
  if (status == EOSFM_OK) grn_ = mode;
  return status;
}

// That there are sums of every specialist that is to run.
eosfm_status eosfm_context::check_gathered(const uint8_t* active) {
  const Chain& chain = model_->chain;
  for (int r = 0; r < chain.runs.size(); ++r) {
    const int specialist = chain.runs[r].specialist;
    if (active[specialist] == 0 || memory_.sums[r].any) continue;
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "no norms of %s were gathered: run the images of the scene "
                      "with EOSFM_GRN_GATHER and the specialist active before EOSFM_GRN_SCENE",
                      chain.specialists[specialist].name);
  }
  return EOSFM_OK;
}

void eosfm_context::forget_gathered() {
  for (int r = 0; r < model_->chain.runs.size(); ++r) {
    GatheredSums& sums = memory_.sums[r];
    memset(sums.all, 0, sums.count * sizeof(double));
    sums.any = false;
  }
}

// Adds what an image's run has left to what was gathered.
void eosfm_context::keep_gathered() {
  const Chain& chain = model_->chain;
  for (int r = 0; r < chain.runs.size(); ++r) {
    if (present_[chain.runs[r].specialist] == 0) continue;
    GatheredSums& sums = memory_.sums[r];
    for (size_t i = 0; i < sums.count; ++i) sums.all[i] += sums.fresh[i];
    sums.any = true;
  }
}

// An image that is gathered from and not one tile of many: its valid pixels count.
void eosfm_context::weigh_alone() {
  share_valid(memory_.valid, settings_.width, settings_.height, memory_.shares);
  weights_.all_valid =
      memchr(memory_.valid, 0, static_cast<size_t>(settings_.width) * settings_.height) == nullptr;
  weights_.whole = weights_.all_valid;
  for (int level = 0; level < kLevels; ++level) {
    weights_.valid[level] = weights_.once[level] = memory_.shares[level];
  }
}

namespace {

// Whether a level's cells, rows beside rows and planes after planes, are at places that can be.
bool strides_fit(const eosfm_level& to, ptrdiff_t channels, ptrdiff_t width, ptrdiff_t height) {
  ptrdiff_t plane = 0;
  ptrdiff_t all = 0;
  return to.row_stride >= width && !__builtin_mul_overflow(height - 1, to.row_stride, &plane) &&
         !__builtin_add_overflow(plane, width, &plane) && to.channel_stride >= plane &&
         !__builtin_mul_overflow(channels - 1, to.channel_stride, &all) &&
         !__builtin_add_overflow(all, plane, &all) &&
         all <= PTRDIFF_MAX / static_cast<ptrdiff_t>(sizeof(float));
}

}  // namespace

eosfm_status eosfm_context::read_levels(const eosfm_level* given, eosfm_level (&levels)[kLevels]) {
  const eosfm_status status = check_structs(given, kLevels, error);
  if (status != EOSFM_OK) return status;
  for (int level = 0; level < kLevels; ++level) {
    levels[level] = read_struct_at(given, level);
  }
  for (int level = 0; level < kLevels; ++level) {
    const eosfm_level& to = levels[level];
    if (to.data == nullptr) continue;
    const ptrdiff_t width = cells(settings_.width, level);
    const ptrdiff_t height = cells(settings_.height, level);
    if (reinterpret_cast<uintptr_t>(to.data) % alignof(float) != 0) {
      return error.fail(EOSFM_BAD_ARGUMENT, "the data of level %d is not aligned to floats", level + 1);
    }
    if (!strides_fit(to, model_->chain.level_channels[level], width, height)) {
      return error.fail(EOSFM_BAD_ARGUMENT,
                        "the strides of level %d are %td and %td floats, in which "
                        "rows of %td and planes of %td rows do not fit",
                        level + 1, to.row_stride, to.channel_stride, width, height);
    }
  }
  return EOSFM_OK;
}

eosfm_status eosfm_context::read_run_options(const eosfm_run_options* given, eosfm_run_options* options) {
  const eosfm_status status = read_options(given, options, error);
  if (status != EOSFM_OK) return status;
  if (options->deadline_ms < 0) {
    return error.fail(EOSFM_BAD_ARGUMENT, "the deadline is %lld ms, expected 0 or more",
                      static_cast<long long>(options->deadline_ms));
  }
  if (options->present != nullptr && options->present_count != static_cast<size_t>(present_.size())) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "there are %zu flags for which specialists are present, "
                      "expected %d",
                      options->present_count, present_.size());
  }
  return EOSFM_OK;
}

eosfm_status eosfm_context::run(const eosfm_image* image, const eosfm_level* given_levels,
                                const eosfm_run_options* given_options, const CellWeights* weights) {
  eosfm_run_options options;
  eosfm_level levels[kLevels];
  eosfm_status status = read_run_options(given_options, &options);
  if (status == EOSFM_OK) status = read_levels(given_levels, levels);
  if (status == EOSFM_OK) status = reader_.set(image, model_->chain, error);
  if (status != EOSFM_OK) return status;

  weights_given_ = weights != nullptr;
  if (weights_given_) weights_ = *weights;
  begin(options);
  status = stop_.reason() == Stop::kNone ? compute(levels, options) : stopped();
  end();
  count(status);
  return status;
}

void eosfm_context::begin(const eosfm_run_options& given) {
  const int64_t most_ms = INT64_MAX / 2000000;
  const int64_t ms = given.deadline_ms < most_ms ? given.deadline_ms : most_ms;
  progress_ = given.progress;
  progress_user_ = given.progress_user;
  deadline_ms_ = given.deadline_ms;
  pthread_mutex_lock(&cancel_mutex_);
  stop_.reset(ms > 0 ? monotonic_ns() + ms * 1000000 : 0);
  if (cancelled_) stop_.request(Stop::kCancelled);
  running_ = true;
  pthread_mutex_unlock(&cancel_mutex_);
}

void eosfm_context::end() {
  pthread_mutex_lock(&cancel_mutex_);
  running_ = false;
  pthread_mutex_unlock(&cancel_mutex_);
}

eosfm_status eosfm_context::check_cancelled() {
  pthread_mutex_lock(&cancel_mutex_);
  const bool is_cancelled = cancelled_;
  pthread_mutex_unlock(&cancel_mutex_);
  return is_cancelled ? cancelled() : EOSFM_OK;
}

eosfm_status eosfm_context::cancelled() {
  return error.fail(EOSFM_CANCELLED,
                    "the run was cancelled; after eosfm_context_cancel, eosfm_context_resume "
                    "lets the context run again");
}

void eosfm_context::count(eosfm_status status) {
  ++(status == EOSFM_OK ? statistics_.images : statistics_.failures);
}

eosfm_status eosfm_context::measure(eosfm_statistics* given) {
  const eosfm_status status = check_struct(given, error);
  if (status == EOSFM_OK) write_struct(statistics_, given);
  return status;
}

eosfm_status eosfm_context::measure_specialist(int index, eosfm_specialist_statistics* given) {
  const Chain& chain = model_->chain;
  const eosfm_status status = check_struct(given, error);
  if (status != EOSFM_OK) return status;
  if (index < 0 || index >= chain.specialists.size()) {
    return error.fail(EOSFM_BAD_ARGUMENT, "there is no specialist %d, expected 0 to %d", index,
                      chain.specialists.size() - 1);
  }
  eosfm_specialist_statistics own = StructOf<eosfm_specialist_statistics>::defaults();
  for (int r = 0; !has_engine() && r < chain.runs.size(); ++r) {
    if (chain.runs[r].specialist != index) continue;
    own.runs += memory_.times[r].count;
    own.compute_ns += memory_.times[r].ns;
  }
  write_struct(own, given);
  return EOSFM_OK;
}

eosfm_status eosfm_context::compute(const eosfm_level* levels, const eosfm_run_options& options) {
  eosfm_status status = EOSFM_OK;
  if (has_engine()) {
    status = run_engine();
    if (status != EOSFM_OK) return status;
  } else {
    run_all();
  }
  return finish(levels, options);
}

// Hands out what was computed, if it is to be.
eosfm_status eosfm_context::finish(const eosfm_level* levels, const eosfm_run_options& options) {
  find_present();
  const bool is_partial =
      stop_.reason() == Stop::kDeadline && options.present != nullptr && present_count_ > 0;
  if (stop_.reason() != Stop::kNone && !is_partial) return stopped();
  const eosfm_status status = check_finite();
  if (status != EOSFM_OK) return status;
  const Clock fusing(&statistics_.fuse_ns);
  for (int level = 0; level < kLevels; ++level) {
    if (levels[level].data == nullptr) continue;
    if (has_engine()) {
      copy_level(level, levels[level]);
    } else if (!write_level(level, levels[level])) {
      return error.fail(EOSFM_NOT_FINITE, "the fusion gives values that are not finite at level %d",
                        level + 1);
    }
  }
  // Of an image without a valid pixel there is nothing.
  if (gathers() &&
      (weights_.all_valid ||
       memchr(memory_.valid, 1, static_cast<size_t>(settings_.width) * settings_.height) != nullptr)) {
    keep_gathered();
  }
  for (int i = 0; options.present != nullptr && i < present_.size(); ++i) {
    options.present[i] = present_[i];
  }
  return EOSFM_OK;
}

// That what the specialists or the engine gave are numbers, before it goes anywhere.
eosfm_status eosfm_context::check_finite() {
  for (int level = 0; has_engine() && level < kLevels; ++level) {
    const size_t count = static_cast<size_t>(model_->chain.level_channels[level]) *
                         cells(settings_.width, level) * cells(settings_.height, level);
    if (all_finite(memory_.levels[level], count)) continue;
    return error.fail(EOSFM_NOT_FINITE, "the engine (%s) gives values that are not finite at level %d",
                      backend_name_, level + 1);
  }
  const int broken = broken_.load(std::memory_order_relaxed);
  if (broken < 0) return EOSFM_OK;
  const int specialist = model_->chain.runs[broken / kLevels].specialist;
  return error.fail(EOSFM_NOT_FINITE, "specialist %s gives values that are not finite at level %d",
                    model_->chain.specialists[specialist].name, broken % kLevels + 1);
}

// Which specialists can be in the levels: all of whose runs were done.
void eosfm_context::find_present() {
  const Chain& chain = model_->chain;
  for (int i = 0; i < present_.size(); ++i) present_[i] = active_[i];
  for (int r = 0; r < chain.runs.size(); ++r) {
    present_[chain.runs[r].specialist] &= run_done_[r];
  }
  present_count_ = 0;
  for (const uint8_t one : present_) present_count_ += one;
  if (chain.fusion == Fusion::multiplication && present_count_ < present_.size()) present_count_ = 0;
}

void eosfm_context::read_image(Values values, float* planes) {
  const Clock reading(&statistics_.read_ns);
  Team together(&pool_, &stop_);
  constexpr int kRows = 32;
  together.each(settings_.height / kRows, [&](int task, int) {
    reader_.read_rows(*model_->kernels, values, task * kRows, kRows, settings_.width, settings_.height,
                      planes, memory_.valid);
  });
}

eosfm_status eosfm_context::run_engine() {
  for (uint8_t& one : run_done_) one = 0;
  if (has_batches()) return run_batch();
  read_image(Values::stored, memory_.planes);
  if (stop_.reason() != Stop::kNone) return EOSFM_OK;
  const Clock computing(&statistics_.compute_ns);
  const eosfm_engine& engine = settings_.engine;
  const int failure = engine.compute(engine.user, memory_.planes, memory_.levels);
  stop_.due();
  if (failure == 0) {
    for (uint8_t& one : run_done_) one = 1;
    return EOSFM_OK;
  }
  // An engine that was told to end its run early says that it failed.
  if (stop_.reason() != Stop::kNone) return EOSFM_OK;
  return failed(failure, engine.error != nullptr ? engine.error(engine.user) : "it does not say why");
}

eosfm_status eosfm_context::stopped() {
  return stop_.reason() == Stop::kCancelled ? cancelled()
                                            : error.fail(EOSFM_DEADLINE, "the deadline of %lld ms passed",
                                                         static_cast<long long>(deadline_ms_));
}

eosfm_status eosfm_context::failed(int code, const char* reason) {
  return error.with_code(code, error.fail(EOSFM_ENGINE_FAILED, "the engine (%s) failed with %d: %s",
                                          backend_name_, code, reason));
}

// A batch of one image.
eosfm_status eosfm_context::run_batch() {
  claim(this);
  eosfm_status status = drain(0);
  if (status != EOSFM_OK) return status;
  read_image(Values::stored, batches_.image(batches_.user, 0, 0));
  if (stop_.reason() != Stop::kNone) return EOSFM_OK;
  status = start(0, 1);
  if (status == EOSFM_OK) status = wait(0);
  if (status != EOSFM_OK || stop_.due()) return status;
  for (uint8_t& one : run_done_) one = 1;
  for (int l = 0; l < kLevels; ++l) memory_.levels[l] = batches_.level(batches_.user, 0, 0, l);
  return EOSFM_OK;
}

bool eosfm_context::claim(const void* owner) {
  const bool was = owner_ == owner;
  owner_ = owner;
  return was;
}

// Waits for what a run has left under way, whose images and levels nobody wants any more.
eosfm_status eosfm_context::drain(int slot) {
  const eosfm_status status = wait(slot);
  return status == EOSFM_OK && under_way_[slot] ? stopped() : status;
}

eosfm_status eosfm_context::stage(const eosfm_image* image, int slot, int index) {
  eosfm_status status = reader_.set(image, model_->chain, error);
  if (status == EOSFM_OK) status = drain(slot);
  if (status != EOSFM_OK) return status;
  read_image(Values::stored, batches_.image(batches_.user, slot, index));
  return stop_.reason() == Stop::kNone ? EOSFM_OK : stopped();
}

eosfm_status eosfm_context::start(int slot, int count) {
  const int failure = batches_.start(batches_.user, slot, count);
  if (failure != 0) return failed(failure, batches_.error(batches_.user));
  under_way_[slot] = true;
  return EOSFM_OK;
}

// The device is asked instead of waited for, so that a run ends as soon as it is cancelled or late. What was
// started goes on without it.
eosfm_status eosfm_context::wait(int slot) {
  const Clock computing(&statistics_.compute_ns);
  const int64_t since = monotonic_ns();
  while (under_way_[slot]) {
    const int done = batches_.query(batches_.user, slot);
    if (done != 0) under_way_[slot] = false;
    if (done < 0) return failed(done, batches_.error(batches_.user));
    if (done == 0 && stop_.due()) return EOSFM_OK;
    if (done == 0) rest_since(since);
  }
  return EOSFM_OK;
}

eosfm_status eosfm_context::deliver(int slot, int index, const eosfm_level* levels,
                                    const eosfm_run_options& options) {
  stop_.due();
  for (uint8_t& one : run_done_) one = 1;
  for (int l = 0; l < kLevels; ++l) memory_.levels[l] = batches_.level(batches_.user, slot, index, l);
  return finish(levels, options);
}

void eosfm_context::run_all() {
  const Chain& chain = model_->chain;
  read_image(Values::physical, memory_.planes);
  const Clock computing(&statistics_.compute_ns);
  if (gathers() && !weights_given_) weigh_alone();
  Team together(&pool_, &stop_);
  for (uint8_t& one : run_done_) one = 0;
  broken_.store(-1, std::memory_order_relaxed);
  const int gate = settings_.gate.open != nullptr && active_[settings_.gate.specialist] != 0
                       ? settings_.gate.specialist
                       : -1;
  int count = 0;
  int first = 0;  // of those after the gate's
  for (int turn = 0; turn < 2; ++turn) {
    for (int r = 0; r < chain.runs.size(); ++r) {
      const int specialist = chain.runs[r].specialist;
      const bool mine = turn == 0 ? specialist == gate : specialist != gate;
      if (mine && active_[specialist] != 0) active_runs_[count++] = r;
    }
    if (turn == 0) first = count;
  }
  active_run_count_ = count;
  finished_runs_.store(0, std::memory_order_relaxed);
  const auto shared = [&](int from, int to) {
    for (int i = from; i < to && !together.stopped(); ++i) {
      run_one(active_runs_[i], 0, together);
      finished(0);
    }
  };
  shared(0, first);
  if (broken_.load(std::memory_order_relaxed) >= 0) return;
  if (first > 0 && !together.stopped() && !gate_opens(active_runs_[0])) return;
  // One specialist for each core is fastest, since nothing waits; what is left over is shared.
  const int workers = pool_.workers();
  const int alone = workers > 1 ? (count - first) / workers * workers : 0;
  first_alone_ = first;
  // The host is called from this loop. Nothing that other threads use of it is on this one's stack: should
  // the host throw or jump over it, they still come to an end.
  pool_.each(alone, [](void* self, int task, int worker) {
    static_cast<eosfm_context*>(self)->run_alone(task, worker);
  }, this);
  shared(first + alone, count);
}

void eosfm_context::run_alone(int task, int worker) {
  if (stop_.due()) return;
  Team team(worker, &stop_);
  run_one(active_runs_[first_alone_ + task], worker, team);
  finished(worker);
}

// Counts a run, and tells the host of it from the host's thread.
void eosfm_context::finished(int worker) {
  const int now = finished_runs_.fetch_add(1, std::memory_order_relaxed) + 1;
  if (worker == 0 && progress_ != nullptr && stop_.reason() == Stop::kNone &&
      progress_(progress_user_, now, active_run_count_) != 0) {
    stop_.request(Stop::kCancelled);
  }
}

eosfm_status eosfm_context::verify(double* worst) {
  const Chain& chain = model_->chain;
  if (worst == nullptr) return error.fail(EOSFM_BAD_ARGUMENT, "there is no place for the result");
  if (settings_.width != chain.tile || settings_.height != chain.tile || active_count_ != active_.size()) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "the known answer is for images of %d x %d pixels and all "
                      "specialists active",
                      chain.tile, chain.tile);
  }
  Layout sizes;
  size_t planes[kLevels];
  const size_t pixels = static_cast<size_t>(chain.tile) * chain.tile;
  sizes.take<float>(pixels * chain.bands.size());
  for (int level = 0; level < kLevels; ++level) {
    planes[level] = static_cast<size_t>(cells(chain.tile, level)) * cells(chain.tile, level);
    sizes.take<float>(planes[level] * chain.level_channels[level]);
  }
  Span span;
  Array<eosfm_band> bands;
  const eosfm_allocator& allocator = model_->memory.allocator();
  if (!span.allocate(allocator, sizes.size()) || !bands.allocate(allocator, chain.bands.size())) {
    return error.no_memory("the known answer");
  }
  Layout layout(span.data());
  float* stored = layout.take<float>(pixels * bands.size());
  // The file's tensors need not be aligned when it is in the caller's memory.
  memcpy(stored, chain.known_image()->data, pixels * bands.size() * sizeof(float));
  for (int b = 0; b < bands.size(); ++b) {
    eosfm_band band = EOSFM_BAND_INIT;
    band.data = stored + b * pixels;
    band.column_stride = sizeof(float);
    band.row_stride = static_cast<ptrdiff_t>(sizeof(float)) * chain.tile;
    bands[b] = band;
  }
  eosfm_level levels[kLevels];
  for (int level = 0; level < kLevels; ++level) {
    levels[level] = {sizeof(eosfm_level), layout.take<float>(planes[level] * chain.level_channels[level]),
                     static_cast<ptrdiff_t>(planes[level]), cells(chain.tile, level)};
  }
  eosfm_image image = EOSFM_IMAGE_INIT;
  image.bands = bands.begin();
  image.band_count = static_cast<size_t>(bands.size());
  const eosfm_grn mode = grn_;
  const eosfm_gate gate = settings_.gate;
  grn_ = EOSFM_GRN_TILE;
  settings_.gate.open = nullptr;
  const eosfm_status status = run(&image, levels, nullptr);
  grn_ = mode;
  settings_.gate = gate;
  if (status == EOSFM_NOT_FINITE) {
    for (int level = 0; level < kLevels; ++level) worst[level] = INFINITY;
    const ErrorText reason = error;
    return error.fail(EOSFM_WRONG_ANSWER, "the known answer does not come out: %.400s", reason.text);
  }
  if (status != EOSFM_OK) return status;

  int wrong = -1;
  for (int level = 0; level < kLevels; ++level) {
    const uint8_t* expected = chain.known_level(level)->data;
    double peak = 0.0;
    double difference = 0.0;
    for (size_t i = 0; i < planes[level] * chain.level_channels[level]; ++i) {
      float value;
      memcpy(&value, expected + 4 * i, sizeof value);
      const double d = fabs(static_cast<double>(levels[level].data[i]) - static_cast<double>(value));
      peak = fmax(peak, fabs(static_cast<double>(value)));
      difference = fmax(difference, d);  // both are finite
    }
    worst[level] = peak > 0.0 ? difference / peak : difference;
    if (!(worst[level] <= static_cast<double>(tolerance_[level]))) wrong = level;
  }
  if (wrong < 0) return EOSFM_OK;
  return error.fail(EOSFM_WRONG_ANSWER,
                    "level %d is off the known answer by %.2g of its largest "
                    "value, expected at most %.2g",
                    wrong + 1, worst[wrong], static_cast<double>(tolerance_[wrong]));
}
