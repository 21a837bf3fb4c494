#include "context.h"

#include <stdio.h>
#include <string.h>

#include "engines.h"
#include "levels.h"
#include "structs.h"

using namespace eosfm;

size_t eosfm_context::own_bytes(const Settings& settings, const Chain& chain) {
  const int specialists = chain.specialists.size();
  return bytes_of<eosfm_context>() + Pool::bytes(settings.threads) +
         bytes_of<uint8_t>(settings.width * settings.height) + 2 * bytes_of<uint8_t>(specialists);
}

eosfm_context::~eosfm_context() {
  // Threads may still compute for a run that a callback left by a jump or an exception.
  state_.stop.request(Stop::kCancelled);
  state_.pool.end();
  if (engine_ != nullptr) engine_->destroy();
  pthread_mutex_destroy(&cancel_mutex_);
}

eosfm_status eosfm_context::enter() {
  // No sentence: it would be written while the other call may write its own.
  if (busy_.exchange(true, std::memory_order_acquire)) return EOSFM_BUSY;
  if (state_.pool.is_here()) return EOSFM_OK;
  leave();
  return error().fail(EOSFM_BAD_ARGUMENT, "the context is of the process that this one was forked from, "
                                          "where its threads are: create another here");
}

eosfm_status eosfm_context::create(eosfm_model* model, const Settings& settings, const char* engine,
                                   ErrorText& text) {
  state_.model = model;
  state_.settings = settings;
  snprintf(state_.engine_name, sizeof state_.engine_name, "%s",
           engine != nullptr ? engine : settings.host.name);
  eosfm_status status = make_engine(engine, state_, &engine_, text);
  if (status == EOSFM_OK) status = check_room(text);
  if (status == EOSFM_OK) status = engine_->allocate(text);
  if (status != EOSFM_OK) return status;
  const eosfm_allocator& allocator = model->memory.allocator();
  const int specialists = model->specialists.size();
  if (!state_.valid.allocate(allocator, settings.width * settings.height) ||
      !state_.active.allocate(allocator, specialists) || !present_.allocate(allocator, specialists)) {
    return text.no_memory("the context");
  }
  for (uint8_t& one : state_.active) one = 1;
  const int failure = state_.pool.start(allocator, settings.threads, settings.thread_hook);
  return failure == 0 ? EOSFM_OK : text.with_code(failure, text.no_memory("the context's threads"));
}

// Checks that the limits leave room for what the context and its engine will take.
eosfm_status eosfm_context::check_room(ErrorText& text) {
  const Settings& settings = state_.settings;
  const EngineBytes& engine = engine_->bytes();
  const size_t needed = own_bytes(settings, model()->chain) + engine.object + engine.images;
  if (settings.memory_limit != 0 && needed + engine.weights + engine.reserved > settings.memory_limit) {
    return text.fail(EOSFM_NO_MEMORY,
                     "the context needs %zu bytes, its weights %zu and its backend %zu, the "
                     "limit is %zu; fewer threads or smaller images need less",
                     needed, engine.weights, engine.reserved, settings.memory_limit);
  }
  const size_t taken = bytes_of<eosfm_context>() + engine.object;
  return model()->check_room(settings.precision, engine.weights, needed - taken, text);
}

eosfm_status eosfm_context::set_active(const uint8_t* active, size_t count) {
  const int specialists = state_.active.size();
  if (active == nullptr || count != static_cast<size_t>(specialists)) {
    return error().fail(EOSFM_BAD_ARGUMENT,
                        "%zu flags are given, expected one for each of %d "
                        "specialists",
                        count, specialists);
  }
  int wanted = 0;
  for (size_t i = 0; i < count; ++i) wanted += active[i] != 0 ? 1 : 0;
  if (wanted == 0) return error().fail(EOSFM_BAD_ARGUMENT, "no specialist is active");
  const eosfm_status status = engine_->check_active(active);
  if (status != EOSFM_OK) return status;
  for (int i = 0; i < specialists; ++i) state_.active[i] = active[i] != 0 ? 1 : 0;
  return EOSFM_OK;
}

eosfm_status eosfm_context::set_grn(eosfm_grn mode) {
  const eosfm_status status = engine_->prepare_grn(mode);
  if (status == EOSFM_OK) state_.grn = mode;
  return status;
}

eosfm_status eosfm_context::read_run_options(const eosfm_run_options* given, eosfm_run_options* options) {
  const eosfm_status status = read_options(given, options, error());
  if (status != EOSFM_OK) return status;
  if (options->deadline_ms < 0) {
    return error().fail(EOSFM_BAD_ARGUMENT, "the deadline is %lld ms, expected 0 or more",
                        static_cast<long long>(options->deadline_ms));
  }
  if (options->present != nullptr && options->present_count != static_cast<size_t>(present_.size())) {
    return error().fail(EOSFM_BAD_ARGUMENT,
                        "there are %zu flags for which specialists are present, "
                        "expected %d",
                        options->present_count, present_.size());
  }
  return EOSFM_OK;
}

eosfm_status eosfm_context::run(const eosfm_image* image, const eosfm_level* given_levels,
                                const eosfm_run_options* given_options) {
  eosfm_run_options options;
  eosfm_level levels[kLevels];
  eosfm_status status = read_run_options(given_options, &options);
  if (status == EOSFM_OK) {
    status = read_levels(given_levels, model()->chain, state_.settings.width, state_.settings.height, levels,
                         error());
  }
  if (status == EOSFM_OK) status = reader_.set(image, model()->chain, error());
  if (status != EOSFM_OK) return status;
  state_.is_weighted = false;
  begin(options);
  claim(this);
  status = read_image(0, 0);
  if (status == EOSFM_OK) status = start(0, 1);
  if (status == EOSFM_OK) status = wait(0);
  if (status == EOSFM_OK) status = deliver(0, 0, levels, options);
  end();
  count(status);
  return status;
}

void eosfm_context::begin(const eosfm_run_options& given) {
  const int64_t most_ms = INT64_MAX / 2000000;
  const int64_t ms = given.deadline_ms < most_ms ? given.deadline_ms : most_ms;
  state_.progress = given.progress;
  state_.progress_user = given.progress_user;
  deadline_ms_ = given.deadline_ms;
  pthread_mutex_lock(&cancel_mutex_);
  state_.stop.reset(ms > 0 ? monotonic_ns() + ms * 1000000 : 0);
  if (cancelled_) state_.stop.request(Stop::kCancelled);
  running_ = true;
  pthread_mutex_unlock(&cancel_mutex_);
}

void eosfm_context::end() {
  pthread_mutex_lock(&cancel_mutex_);
  running_ = false;
  pthread_mutex_unlock(&cancel_mutex_);
}

bool eosfm_context::claim(const void* owner) {
  const bool was = owner_ == owner;
  owner_ = owner;
  return was;
}

eosfm_status eosfm_context::stage(const eosfm_image* image, const CellWeights* weights, int slot, int index) {
  const eosfm_status status = reader_.set(image, model()->chain, error());
  if (status != EOSFM_OK) return status;
  state_.is_weighted = weights != nullptr;
  if (weights != nullptr) state_.weights = *weights;
  return read_image(slot, index);
}

eosfm_status eosfm_context::read_image(int slot, int index) {
  if (state_.stop.reason() != Stop::kNone) return stopped();
  float* planes = nullptr;
  {
    const Clock computing(&statistics_.compute_ns);
    const eosfm_status status = engine_->find_planes(slot, index, &planes);
    if (status != EOSFM_OK) return status;
  }
  if (state_.stop.reason() != Stop::kNone) return stopped();
  const Clock reading(&statistics_.read_ns);
  Team together(&state_.pool, &state_.stop);
  constexpr int kRows = 32;
  const Settings& settings = state_.settings;
  together.each(settings.height / kRows, [&](int task, int) {
    reader_.read_rows(*model()->kernels, engine_->values(), task * kRows, kRows, settings.width,
                      settings.height, planes, state_.valid.begin());
  });
  return together.stopped() ? stopped() : EOSFM_OK;
}

eosfm_status eosfm_context::start(int slot, int count) {
  const Clock computing(&statistics_.compute_ns);
  return engine_->start(slot, count);
}

eosfm_status eosfm_context::wait(int slot) {
  const Clock computing(&statistics_.compute_ns);
  return engine_->wait(slot);
}

eosfm_status eosfm_context::deliver(int slot, int index, const eosfm_level* levels,
                                    const eosfm_run_options& options) {
  const int present = engine_->find_present(slot, present_.begin());
  const bool is_partial =
      state_.stop.reason() == Stop::kDeadline && options.present != nullptr && present > 0;
  if (state_.stop.reason() != Stop::kNone && !is_partial) return stopped();
  const Clock fusing(&statistics_.fuse_ns);
  const eosfm_status status = engine_->write(slot, index, present_.begin(), levels);
  if (status != EOSFM_OK) return status;
  for (int i = 0; options.present != nullptr && i < present_.size(); ++i) {
    options.present[i] = present_[i];
  }
  return EOSFM_OK;
}

eosfm_status eosfm_context::stopped() {
  return state_.stop.reason() == Stop::kCancelled
             ? cancelled()
             : error().fail(EOSFM_DEADLINE, "the deadline of %lld ms passed",
                            static_cast<long long>(deadline_ms_));
}

eosfm_status eosfm_context::cancelled() {
  return error().fail(EOSFM_CANCELLED,
                      "the run was cancelled; after eosfm_context_cancel, eosfm_context_resume "
                      "lets the context run again");
}

void eosfm_context::cancel() {
  pthread_mutex_lock(&cancel_mutex_);
  cancelled_ = true;
  if (running_) {
    state_.stop.request(Stop::kCancelled);
    engine_->cancel();
  }
  pthread_mutex_unlock(&cancel_mutex_);
}

void eosfm_context::resume() {
  pthread_mutex_lock(&cancel_mutex_);
  cancelled_ = false;
  pthread_mutex_unlock(&cancel_mutex_);
}

eosfm_status eosfm_context::check_cancelled() {
  pthread_mutex_lock(&cancel_mutex_);
  const bool is_cancelled = cancelled_;
  pthread_mutex_unlock(&cancel_mutex_);
  return is_cancelled ? cancelled() : EOSFM_OK;
}

void eosfm_context::count(eosfm_status status) {
  ++(status == EOSFM_OK ? statistics_.images : statistics_.failures);
}

eosfm_status eosfm_context::measure(eosfm_statistics* given) {
  const eosfm_status status = check_struct(given, error());
  if (status == EOSFM_OK) write_struct(statistics_, given);
  return status;
}

eosfm_status eosfm_context::measure_specialist(int index, eosfm_specialist_statistics* given) {
  const Chain& chain = model()->chain;
  const eosfm_status status = check_struct(given, error());
  if (status != EOSFM_OK) return status;
  if (index < 0 || index >= chain.specialists.size()) {
    return error().fail(EOSFM_BAD_ARGUMENT, "there is no specialist %d, expected 0 to %d", index,
                        chain.specialists.size() - 1);
  }
  eosfm_specialist_statistics own = StructOf<eosfm_specialist_statistics>::defaults();
  const RunTime time = engine_->time_of(index);
  own.runs = time.count;
  own.compute_ns = time.ns;
  write_struct(own, given);
  return EOSFM_OK;
}
