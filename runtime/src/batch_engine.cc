#include "batch_engine.h"

#include <sched.h>
#include <time.h>

namespace eosfm {
namespace {

EngineBytes measure(const eosfm_batches& batches) {
  EngineBytes bytes;
  bytes.object = bytes_of<BatchEngine>();
  bytes.images = bytes_of<bool>(batches.slots);  // planes and levels lie in the backend's memory
  return bytes;
}

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

BatchEngine::BatchEngine(RunState& state, Backend* backend)
    : ForeignEngine(state, backend->batches().slots, backend->batches().batch, backend->tolerance(),
                    measure(backend->batches()), backend),
      batches_(backend->batches()) {}

eosfm_status BatchEngine::allocate(ErrorText& text) {
  const eosfm_allocator& allocator = state_.model->memory.allocator();
  return under_way_.allocate(allocator, batches_.slots) ? EOSFM_OK : text.no_memory("the context");
}

void BatchEngine::destroy() { unmake(state_.model->memory.allocator(), this); }

// Waits for images that an earlier call left under way in the slot, and whose levels nobody wants any more.
eosfm_status BatchEngine::find_planes(int slot, int index, float** planes) {
  const eosfm_status status = wait(slot);
  if (status == EOSFM_OK && !under_way_[slot]) *planes = batches_.image(batches_.user, slot, index);
  return status;
}

eosfm_status BatchEngine::start(int slot, int count) {
  const int failure = batches_.start(batches_.user, slot, count);
  if (failure != 0) return fail(failure, batches_.error(batches_.user));
  under_way_[slot] = true;
  return EOSFM_OK;
}

// The device is polled, so that a run ends as soon as it is cancelled or late. What was started goes on
// without it.
eosfm_status BatchEngine::wait(int slot) {
  const int64_t since = monotonic_ns();
  while (under_way_[slot]) {
    const int done = batches_.query(batches_.user, slot);
    if (done != 0) under_way_[slot] = false;
    if (done < 0) return fail(done, batches_.error(batches_.user));
    if (done == 0 && state_.stop.due()) return EOSFM_OK;
    if (done == 0) rest_since(since);
  }
  state_.stop.due();
  return EOSFM_OK;
}

const float* BatchEngine::level(int slot, int index, int level) const {
  return batches_.level(batches_.user, slot, index, level);
}

}  // namespace eosfm
