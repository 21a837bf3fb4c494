#include "native_engine.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/isa.h"

namespace eosfm {
namespace {

size_t larger(size_t a, size_t b) { return a > b ? a : b; }

}  // namespace

void NativeMemory::lay_out(Layout& layout, const Settings& settings, const Chain& chain,
                           const PackedModel& packed, const Kernels& kernels) {
  const size_t pixels = static_cast<size_t>(settings.width) * settings.height;
  planes = layout.take<float>(pixels * chain.bands.size());
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
  norms = layout.take<NormMemory>(passes_count);
  for (size_t i = 0; i < passes_count; ++i) {
    const PassMemory pass = take_pass(layout, extent);
    const NormMemory norm = {layout.take<double>(2 * most_strips), layout.take<float>(widest),
                             layout.take<float>(widest)};
    if (passes != nullptr) passes[i] = pass;
    if (norms != nullptr) norms[i] = norm;
  }
  workers = layout.take<WorkerMemory>(workers_count);
  for (size_t i = 0; i < workers_count; ++i) {
    const WorkerMemory worker = take_worker(layout, extent);
    if (workers != nullptr) workers[i] = worker;
  }
  times = layout.take<RunTime>(runs);
  for (int level = 0; settings.gate.open != nullptr && level < kLevels; ++level) {
    gate_levels[level] =
        layout.take<float>(static_cast<size_t>(chain.set_channels(settings.gate.specialist, level)) *
                           cells(settings.width, level) * cells(settings.height, level));
  }
}

eosfm_status NativeEngine::choose_kernels(const Kernels** kernels, ErrorText& text) {
  const char* wanted = getenv("EOSFM_ISA");
  *kernels = eosfm::choose_kernels(wanted);
  if (*kernels != nullptr) return EOSFM_OK;
  return wanted != nullptr && *wanted != '\0'
             ? text.fail(EOSFM_UNSUPPORTED,
                         "EOSFM_ISA is '%s', which this processor or this library has "
                         "not",
                         wanted)
             : text.fail(EOSFM_UNSUPPORTED, "this processor has neither AVX2 with FMA nor NEON");
}

eosfm_status NativeEngine::measure(const eosfm_model& model, const Settings& settings, EngineBytes* bytes,
                                   ErrorText& text) {
  const Chain& chain = model.chain;
  PackedModel shapes;
  const eosfm_status status = model.shape(settings.precision, &shapes, text);
  if (status != EOSFM_OK) return status;
  Layout layout;
  NativeMemory memory = {};
  memory.lay_out(layout, settings, chain, shapes, *model.kernels);
  Features().lay_out(layout, shapes, settings);
  SceneNorms().lay_out(layout, chain, shapes);
  bytes->object = bytes_of<NativeEngine>();
  bytes->images = layout.size() + bytes_of<uint8_t>(chain.runs.size()) + bytes_of<int>(chain.runs.size());
  bytes->weights = shapes.bytes;
  return EOSFM_OK;
}

NativeEngine::NativeEngine(RunState& state, const EngineBytes& bytes)
    : Engine(state, Values::physical, 1, 1, state.model->chain.tolerance, bytes) {}

void NativeEngine::lay_out(Layout& layout) {
  const eosfm_model& model = *state_.model;
  memory_.lay_out(layout, state_.settings, model.chain, *packed_, *model.kernels);
  features_.lay_out(layout, *packed_, state_.settings);
  scene_norms_.lay_out(layout, model.chain, *packed_);
}

eosfm_status NativeEngine::allocate(ErrorText& text) {
  eosfm_model& model = *state_.model;
  const Settings& settings = state_.settings;
  const Chain& chain = model.chain;
  const eosfm_status status = model.packed(settings.precision, &packed_, text);
  if (status != EOSFM_OK) return status;
  const eosfm_allocator& allocator = model.memory.allocator();
  Layout sizes;
  lay_out(sizes);
  if (!span_.allocate(allocator, sizes.size()) || !run_done_.allocate(allocator, chain.runs.size()) ||
      !active_runs_.allocate(allocator, chain.runs.size())) {
    return text.no_memory("the context");
  }
  Layout layout(span_.data());
  lay_out(layout);
  features_.set(model, *packed_, settings);
  const size_t plane = static_cast<size_t>(settings.width) * settings.height;
  for (int i = 0; i < chain.run_bands.size(); ++i) {
    memory_.run_planes[i] = memory_.planes + plane * chain.run_bands[i];
  }
  return EOSFM_OK;
}

void NativeEngine::destroy() { unmake(state_.model->memory.allocator(), this); }

eosfm_status NativeEngine::check_active(const uint8_t* active) {
  const Chain& chain = state_.model->chain;
  if (chain.fusion == Fusion::multiplication &&
      memchr(active, 0, static_cast<size_t>(chain.specialists.size())) != nullptr) {
    return state_.error.fail(EOSFM_UNSUPPORTED, "the fusion is a product: it is zero everywhere as soon as a "
                                                "specialist is not active");
  }
  return state_.grn == EOSFM_GRN_SCENE ? scene_norms_.check(chain, active, state_.error) : EOSFM_OK;
}

eosfm_status NativeEngine::prepare_grn(eosfm_grn mode) {
  const Chain& chain = state_.model->chain;
  switch (mode) {
    case EOSFM_GRN_TILE: return EOSFM_OK;
    case EOSFM_GRN_GATHER: scene_norms_.forget(chain); return EOSFM_OK;
    case EOSFM_GRN_SCENE: return scene_norms_.check(chain, state_.active.begin(), state_.error);
  }
  return state_.error.fail(EOSFM_BAD_ARGUMENT, "the mode of GRN is %d, which is not known",
                           static_cast<int>(mode));
}

eosfm_status NativeEngine::find_planes(int, int, float** planes) {
  *planes = memory_.planes;
  return EOSFM_OK;
}

// The gate's specialist runs first. The others run one on each worker, which is fastest since nothing waits, and all
// workers share each of the last ones.
eosfm_status NativeEngine::start(int, int) {
  if (state_.grn == EOSFM_GRN_GATHER) weigh();
  for (uint8_t& one : run_done_) one = 0;
  features_.clear();
  finished_runs_.store(0, std::memory_order_relaxed);
  const int of_gate = order_runs();
  Team together(&state_.pool, &state_.stop);
  const auto share = [&](int from, int to) {
    for (int i = from; i < to && !together.stopped(); ++i) {
      run(active_runs_[i], 0, together);
      finished(0);
    }
  };
  share(0, of_gate);
  if (!features_.are_finite()) return EOSFM_OK;
  if (of_gate > 0 && !together.stopped() && !gate_opens(active_runs_[0])) return EOSFM_OK;
  const int workers = state_.pool.workers();
  const int alone = workers > 1 ? (active_run_count_ - of_gate) / workers * workers : 0;
  first_alone_ = of_gate;
  // The host is called from this loop. Nothing that other threads use of it is on this one's stack: should
  // the host throw or jump over it, they still come to an end.
  state_.pool.each(alone, [](void* self, int task, int worker) {
    static_cast<NativeEngine*>(self)->run_alone(task, worker);
  }, this);
  share(of_gate + alone, active_run_count_);
  return EOSFM_OK;
}

// Finds how much the image's cells count: as the caller weighs them or, if the image is alone, by their valid pixels.
void NativeEngine::weigh() {
  if (state_.is_weighted) {
    weights_ = state_.weights;
    return;
  }
  const Settings& settings = state_.settings;
  share_valid(state_.valid.begin(), settings.width, settings.height, memory_.shares);
  weights_.all_valid =
      memchr(state_.valid.begin(), 0, static_cast<size_t>(settings.width) * settings.height) == nullptr;
  weights_.whole = weights_.all_valid;
  for (int level = 0; level < kLevels; ++level) {
    weights_.valid[level] = weights_.once[level] = memory_.shares[level];
  }
}

// Lists the runs of active specialists, the gate's first, and returns how many those are.
int NativeEngine::order_runs() {
  const Chain& chain = state_.model->chain;
  const eosfm_gate& gate = state_.settings.gate;
  const auto is_gate = [&](int r) {
    return gate.open != nullptr && chain.runs[r].specialist == gate.specialist;
  };
  active_run_count_ = 0;
  const auto list = [&](bool of_gate) {
    for (int r = 0; r < chain.runs.size(); ++r) {
      if (is_gate(r) == of_gate && state_.active[chain.runs[r].specialist] != 0) {
        active_runs_[active_run_count_++] = r;
      }
    }
  };
  list(true);
  const int first = active_run_count_;
  list(false);
  return first;
}

void NativeEngine::run_alone(int task, int worker) {
  if (state_.stop.due()) return;
  Team team(worker, &state_.stop);
  run(active_runs_[first_alone_ + task], worker, team);
  finished(worker);
}

void NativeEngine::run(int run, int pass, Team& team) {
  const eosfm_model& model = *state_.model;
  const Run& what = model.chain.runs[run];
  const Clock running(&memory_.times[run].ns);
  Features::Sink sink(features_, run, memory_.norms[pass]);
  const GrnSums sums = {state_.grn, scene_norms_.squares(run, state_.grn),
                        state_.grn == EOSFM_GRN_GATHER ? &weights_ : nullptr};
  run_network(packed_->networks[what.specialist], *model.kernels, memory_.run_planes + what.first_band,
              state_.settings.width, state_.settings.height, sums, memory_.passes[pass], memory_.workers,
              team, sink);
  run_done_[run] = team.stopped() ? 0 : 1;
  memory_.times[run].count += run_done_[run];
}

// Counts a run, and tells the host of it from the host's thread.
void NativeEngine::finished(int worker) {
  const int now = finished_runs_.fetch_add(1, std::memory_order_relaxed) + 1;
  if (worker == 0 && state_.progress != nullptr && state_.stop.reason() == Stop::kNone &&
      state_.progress(state_.progress_user, now, active_run_count_) != 0) {
    state_.stop.request(Stop::kCancelled);
  }
}

// Shows the gate the features of its run; returns whether it lets the other specialists run.
bool NativeEngine::gate_opens(int run) {
  Team team(&state_.pool, &state_.stop);
  const float* levels[kLevels];
  int32_t channels[kLevels];
  for (int l = 0; l < kLevels; ++l) {
    features_.copy(run, l, memory_.gate_levels[l], memory_.workers, team);
    levels[l] = memory_.gate_levels[l];
    channels[l] = packed_->chain.sets[l][run].channels;
  }
  const eosfm_gate& gate = state_.settings.gate;
  return team.stopped() || gate.open(gate.user, levels, channels) != 0;
}

// A specialist is present if all its runs are done.
int NativeEngine::find_present(int, uint8_t* present) {
  const Chain& chain = state_.model->chain;
  const int specialists = state_.active.size();
  memcpy(present, state_.active.begin(), static_cast<size_t>(specialists));
  for (int r = 0; r < chain.runs.size(); ++r) present[chain.runs[r].specialist] &= run_done_[r];
  int count = 0;
  for (int i = 0; i < specialists; ++i) count += present[i];
  return chain.fusion == Fusion::multiplication && count < specialists ? 0 : count;
}

eosfm_status NativeEngine::write(int, int, const uint8_t* present, const eosfm_level* levels) {
  const eosfm_status status = features_.check_finite(state_.error);
  if (status != EOSFM_OK) return status;
  for (int level = 0; level < kLevels; ++level) {
    if (levels[level].data == nullptr) continue;
    if (features_.write_level(level, present, memory_.workers, &state_.pool, levels[level])) continue;
    return state_.error.fail(EOSFM_NOT_FINITE, "the fusion gives values that are not finite at level %d",
                             level + 1);
  }
  // Nothing is gathered from an image without a valid pixel.
  const Settings& settings = state_.settings;
  if (state_.grn == EOSFM_GRN_GATHER &&
      (weights_.all_valid ||
       memchr(state_.valid.begin(), 1, static_cast<size_t>(settings.width) * settings.height) != nullptr)) {
    scene_norms_.keep(state_.model->chain, present);
  }
  return EOSFM_OK;
}

RunTime NativeEngine::time_of(int specialist) const {
  const Chain& chain = state_.model->chain;
  RunTime total = {0, 0};
  for (int r = 0; r < chain.runs.size(); ++r) {
    if (chain.runs[r].specialist != specialist) continue;
    total.count += memory_.times[r].count;
    total.ns += memory_.times[r].ns;
  }
  return total;
}

}  // namespace eosfm
