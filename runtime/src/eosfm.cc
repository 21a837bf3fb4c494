// The functions of eosfm.h: they check arguments, and make and unmake objects.
#include "eosfm.h"

#include <stdio.h>
#include <string.h>

#include "context.h"
#include "engines.h"
#include "head.h"
#include "ladder.h"
#include "levels.h"
#include "model.h"
#include "native_engine.h"
#include "stream.h"
#include "structs.h"

using namespace eosfm;

namespace {

// Opens the bundle whose files `set` sets. `source`, where they come from, must not be null.
template <class Set>
eosfm_status open_from(const void* source, Set set, const eosfm_open_options* given, eosfm_model** result) {
  ErrorText text;
  eosfm_open_options options;
  eosfm_status status = read_options(given, &options, text);
  if (status != EOSFM_OK) return status;  // the place for the sentence is not known
  eosfm_model* model = nullptr;
  eosfm_allocator allocator;
  if (source == nullptr || result == nullptr) {
    status = text.fail(EOSFM_BAD_ARGUMENT, "the directory, the files or the place for the model is NULL");
  } else {
    status = read_options(options.allocator, &allocator, text);
  }
  if (status == EOSFM_OK && options.allocator != nullptr &&
      (allocator.allocate == nullptr || allocator.release == nullptr)) {
    status =
        text.fail(EOSFM_BAD_ARGUMENT, "the allocator has no function that allocates, or none that releases");
  }
  if (status == EOSFM_OK) {
    status = eosfm_model::make(options.allocator != nullptr ? &allocator : nullptr, options.memory_limit,
                               &model, text);
  }
  if (status == EOSFM_OK) {
    if (options.private_copy != 0) model->files.copy();
    model->log = options.log;
    model->log_user = options.log_user;
    status = set(*model, text);
  }
  const Kernels* kernels = nullptr;
  if (status == EOSFM_OK) status = NativeEngine::choose_kernels(&kernels, text);
  if (status == EOSFM_OK) status = model->load(*kernels, text);
  if (status == EOSFM_OK) {
    *result = model;
    if (model->log != nullptr) {
      char line[160];
      snprintf(line, sizeof line, "opened %s: %d specialists%s, %s", model->chain.name,
               model->specialists.size(), model->has_weights() ? "" : " without their files",
               model->kernels->name);
      model->log(model->log_user, EOSFM_LOG_INFO, line);
    }
    return EOSFM_OK;
  }
  if (model != nullptr) eosfm_model::unmake(model);
  if (options.error != nullptr && options.error_size > 0) {
    snprintf(options.error, options.error_size, "%s", text.text);
  }
  if (options.error_code != nullptr) *options.error_code = text.code;
  return status;
}

// Fills a caller's struct with the defaults as `fill` changes them.
template <class T, class Fill>
eosfm_status give(eosfm_model* model, T* given, const Fill& fill) {
  if (model == nullptr) return EOSFM_BAD_ARGUMENT;
  ErrorText text;
  T own = StructOf<T>::defaults();
  eosfm_status status = check_struct(given, text);
  if (status == EOSFM_OK) status = fill(own, text);
  if (status == EOSFM_OK) write_struct(own, given);
  return model->keep(status, text);
}

eosfm_status check_index(const char* what, int32_t index, int count, ErrorText& text) {
  if (index >= 0 && index < count) return EOSFM_OK;
  return text.fail(EOSFM_BAD_ARGUMENT, "there is no %s %d, expected 0 to %d", what, static_cast<int>(index),
                   count - 1);
}

// Calls a function on a context, which only one call at a time may use.
template <class F>
eosfm_status alone(eosfm_context* context, const F& call) {
  if (context == nullptr) return EOSFM_BAD_ARGUMENT;
  eosfm_status status = context->enter();
  if (status != EOSFM_OK) return status;
  status = call();
  context->leave();
  return status;
}

template <class F>
eosfm_status alone(eosfm_stream* stream, const F& call) {
  return stream != nullptr ? alone(stream->context(), call) : EOSFM_BAD_ARGUMENT;
}

}  // namespace

#define EOSFM_TEXT_OF(x) #x
#define EOSFM_TEXT(x) EOSFM_TEXT_OF(x)

const char* eosfm_library_get_version(void) {
  return EOSFM_TEXT(EOSFM_VERSION_MAJOR) "." EOSFM_TEXT(EOSFM_VERSION_MINOR) "." EOSFM_TEXT(
      EOSFM_VERSION_PATCH);
}

int32_t eosfm_library_get_version_number(void) { return EOSFM_VERSION_NUMBER; }

const char* eosfm_status_get_text(int status) {
  switch (status) {
    case EOSFM_OK: return "ok";
    case EOSFM_BAD_ARGUMENT: return "bad argument";
    case EOSFM_NOT_FOUND: return "not found";
    case EOSFM_BAD_BUNDLE: return "bad bundle";
    case EOSFM_UNSUPPORTED: return "unsupported";
    case EOSFM_NO_MEMORY: return "no memory";
    case EOSFM_CANCELLED: return "cancelled";
    case EOSFM_DEADLINE: return "deadline passed";
    case EOSFM_WRONG_ANSWER: return "wrong answer";
    case EOSFM_NOT_FINITE: return "values that are not finite";
    case EOSFM_AGAIN: return "more rows are needed";
    case EOSFM_END: return "end of the stream";
    case EOSFM_ENGINE_FAILED: return "the engine failed";
    case EOSFM_BUSY: return "the context is in use";
  }
  return "a status that this version does not know";
}

eosfm_status eosfm_model_open(const char* directory, const eosfm_open_options* options, eosfm_model** model) {
  const auto set = [&](eosfm_model& to, ErrorText& text) {
    return to.files.set_directory(to.memory.allocator(), directory, text);
  };
  return open_from(directory, set, options, model);
}

eosfm_status eosfm_model_open_memory(const eosfm_file* files, size_t count, const eosfm_open_options* options,
                                     eosfm_model** model) {
  const auto set = [&](eosfm_model& to, ErrorText& text) {
    return to.files.set_memory(to.memory.allocator(), files, count, text);
  };
  return open_from(files, set, options, model);
}

void eosfm_model_close(eosfm_model* model) {
  if (model != nullptr) eosfm_model::drop(model);
}

const char* eosfm_model_get_error(const eosfm_model* model) {
  return model != nullptr ? model->error.text : "";
}

int32_t eosfm_model_get_error_code(const eosfm_model* model) {
  return model != nullptr ? model->error.code : 0;
}

eosfm_status eosfm_model_describe(eosfm_model* model, eosfm_model_info* info) {
  return give(model, info, [&](eosfm_model_info& own, ErrorText&) {
    const Chain& chain = model->chain;
    own.name = chain.name;
    own.isa = model->kernels->name;
    own.bands = chain.bands.size();
    own.specialists = chain.specialists.size();
    own.runs = chain.runs.size();
    own.tile = chain.tile;
    for (int level = 0; level < kLevels; ++level) own.channels[level] = chain.level_channels[level];
    own.memory_bytes = model->memory.bytes();
    own.memory_peak_bytes = model->memory.peak_bytes();
    return EOSFM_OK;
  });
}

eosfm_status eosfm_model_describe_band(eosfm_model* model, int32_t index, eosfm_band_info* info) {
  return give(model, info, [&](eosfm_band_info& own, ErrorText& text) {
    const Chain& chain = model->chain;
    const eosfm_status status = check_index("band", index, chain.bands.size(), text);
    if (status != EOSFM_OK) return status;
    const Band& band = chain.bands[index];
    own.name = band.name;
    own.wavelength_nm = band.wavelength_nm;
    own.scale = band.physical_scale;
    own.offset = band.physical_offset;
    own.fill = band.fill;
    own.has_nodata = band.has_nodata ? 1 : 0;
    own.nodata = band.nodata;
    return EOSFM_OK;
  });
}

eosfm_status eosfm_model_describe_specialist(eosfm_model* model, int32_t index, eosfm_specialist_info* info) {
  return give(model, info, [&](eosfm_specialist_info& own, ErrorText& text) {
    const Chain& chain = model->chain;
    const eosfm_status status = check_index("specialist", index, chain.specialists.size(), text);
    if (status != EOSFM_OK) return status;
    own.name = chain.specialists[index].name;
    own.backbone = model->specialists[index].backbone;
    own.licence = model->specialists[index].licence;
    own.bands = model->specialists[index].bands;
    for (const Run& run : chain.runs) {
      if (run.specialist != index) continue;
      own.bands = run.bands;  // as many as its file says, if that is there
      ++own.runs;
    }
    own.factor = chain.specialists[index].factor;
    return EOSFM_OK;
  });
}

eosfm_status eosfm_model_get_requirements(eosfm_model* model, const eosfm_context_options* options,
                                          eosfm_requirements* requirements) {
  return give(model, requirements, [&](eosfm_requirements& own, ErrorText& text) {
    Settings settings;
    eosfm_status status = settings.set(options, model->chain, text);
    if (status == EOSFM_OK) status = measure_most(*model, settings, &own, text);
    own.mapped_bytes = model->mapped_bytes();
    return status;
  });
}

eosfm_status eosfm_context_create(eosfm_model* model, const eosfm_context_options* options,
                                  eosfm_context** result) {
  if (model == nullptr) return EOSFM_BAD_ARGUMENT;
  ErrorText text;
  if (result == nullptr) {
    return model->keep(text.fail(EOSFM_BAD_ARGUMENT, "there is no place for the context"), text);
  }
  Settings settings;
  eosfm_status status = settings.set(options, model->chain, text);
  if (status != EOSFM_OK) return model->keep(status, text);
  status = create_first(model, settings, result, text);
  if (status != EOSFM_OK) return model->keep(status, text);
  model->retain();
  return EOSFM_OK;
}

void eosfm_context_destroy(eosfm_context* context) {
  if (context == nullptr) return;
  eosfm_model* model = context->model();
  unmake(model->memory.allocator(), context);
  eosfm_model::drop(model);
}

const char* eosfm_context_get_error(const eosfm_context* context) {
  return context != nullptr ? context->error().text : "";
}

int32_t eosfm_context_get_error_code(const eosfm_context* context) {
  return context != nullptr ? context->error().code : 0;
}

const char* eosfm_context_get_backend(const eosfm_context* context) {
  return context != nullptr ? context->engine_name() : "";
}

eosfm_status eosfm_context_set_active(eosfm_context* context, const uint8_t* active, size_t count) {
  return alone(context, [&] { return context->set_active(active, count); });
}

eosfm_status eosfm_context_set_grn(eosfm_context* context, eosfm_grn mode) {
  return alone(context, [&] { return context->set_grn(mode); });
}

eosfm_status eosfm_context_run(eosfm_context* context, const eosfm_image* image,
                               const eosfm_level levels[EOSFM_LEVELS], const eosfm_run_options* options) {
  return alone(context, [&] { return context->run(image, levels, options); });
}

void eosfm_context_cancel(eosfm_context* context) {
  if (context != nullptr) context->cancel();
}

void eosfm_context_resume(eosfm_context* context) {
  if (context != nullptr) context->resume();
}

eosfm_status eosfm_context_measure(eosfm_context* context, eosfm_statistics* statistics) {
  return alone(context, [&] { return context->measure(statistics); });
}

eosfm_status eosfm_context_measure_specialist(eosfm_context* context, int32_t index,
                                              eosfm_specialist_statistics* statistics) {
  return alone(context, [&] { return context->measure_specialist(index, statistics); });
}

eosfm_status eosfm_library_describe_engine(int32_t index, eosfm_engine_info* given) {
  ErrorText text;
  const eosfm_status status = check_struct(given, text);
  if (status != EOSFM_OK || index < 0) return EOSFM_BAD_ARGUMENT;
  eosfm_engine_info info = read_struct(given);
  info.name = known_engine(index);
  if (info.name == nullptr) return EOSFM_END;
  info.status = find_engine(info.name, &info.isa, text);
  if (info.reason != nullptr && info.reason_size > 0) {
    snprintf(info.reason, info.reason_size, "%s", info.status == EOSFM_OK ? "" : text.text);
  }
  write_struct(info, given);
  return EOSFM_OK;
}

eosfm_status eosfm_context_verify(eosfm_context* context, double worst[EOSFM_LEVELS]) {
  return alone(context, [&] { return context->verify(worst); });
}

eosfm_status eosfm_context_get_tolerance(eosfm_context* context, double tolerance[EOSFM_LEVELS]) {
  return alone(context, [&] {
    if (tolerance == nullptr) {
      return context->error().fail(EOSFM_BAD_ARGUMENT, "there is no place for the tolerance");
    }
    for (int level = 0; level < kLevels; ++level) {
      tolerance[level] = static_cast<double>(context->tolerance()[level]);
    }
    return EOSFM_OK;
  });
}

eosfm_status eosfm_head_open(eosfm_model* model, const char* name, eosfm_head** result) {
  if (model == nullptr) return EOSFM_BAD_ARGUMENT;
  ErrorText text;
  if (name == nullptr || result == nullptr) {
    return model->keep(text.fail(EOSFM_BAD_ARGUMENT, "the head's name, or the place for it, is NULL"), text);
  }
  const eosfm_allocator& allocator = model->memory.allocator();
  eosfm_head* head = make<eosfm_head>(allocator, model);
  const eosfm_status status = head != nullptr ? head->load(name, text) : text.no_memory("the head");
  if (status != EOSFM_OK) {
    unmake(allocator, head);
    return model->keep(status, text);
  }
  model->retain();
  *result = head;
  return EOSFM_OK;
}

void eosfm_head_close(eosfm_head* head) {
  if (head != nullptr) eosfm_head::drop(head);
}

eosfm_status eosfm_head_describe(eosfm_head* head, eosfm_head_info* info) {
  if (head == nullptr) return EOSFM_BAD_ARGUMENT;
  return give(head->model(), info, [&](eosfm_head_info& own, ErrorText&) {
    own.name = head->name();
    own.task = head->task();
    own.outputs = head->outputs();
    own.level = head->level();
    for (int level = 0; level < kLevels; ++level) own.levels[level] = head->reads(level) ? 1 : 0;
    return EOSFM_OK;
  });
}

eosfm_status eosfm_head_describe_class(eosfm_head* head, int32_t index, eosfm_class_info* info) {
  if (head == nullptr) return EOSFM_BAD_ARGUMENT;
  return give(head->model(), info, [&](eosfm_class_info& own, ErrorText& text) {
    if (head->task() != EOSFM_CLASSES) {
      return text.fail(EOSFM_BAD_ARGUMENT, "the head %s is a regression, which has no classes", head->name());
    }
    const eosfm_status status = check_index("class", index, head->outputs(), text);
    if (status != EOSFM_OK) return status;
    const HeadClass& one = head->class_at(index);
    own.name = one.name;
    own.code = one.code;
    own.red = one.colour[0];
    own.green = one.colour[1];
    own.blue = one.colour[2];
    return EOSFM_OK;
  });
}

eosfm_status eosfm_head_apply(eosfm_head* head, const eosfm_level levels[EOSFM_LEVELS], int32_t width,
                              int32_t height, const eosfm_map* map) {
  if (head == nullptr) return EOSFM_BAD_ARGUMENT;
  ErrorText text;
  return head->model()->keep(head->apply(levels, width, height, map, text), text);
}

eosfm_status eosfm_context_get_stream_bytes(eosfm_context* context, const eosfm_stream_options* options,
                                            size_t* bytes) {
  return alone(context, [&] {
    if (bytes != nullptr) return eosfm_stream::measure(context, options, bytes);
    return context->error().fail(EOSFM_BAD_ARGUMENT, "there is no place for the size");
  });
}

eosfm_status eosfm_stream_create(eosfm_context* context, const eosfm_stream_options* options,
                                 eosfm_stream** result) {
  return alone(context, [&] {
    if (result == nullptr) {
      return context->error().fail(EOSFM_BAD_ARGUMENT, "there is no place for the stream");
    }
    const eosfm_allocator& allocator = context->model()->memory.allocator();
    eosfm_stream* stream = make<eosfm_stream>(allocator);
    const eosfm_status status =
        stream != nullptr ? stream->begin(context, options) : context->error().no_memory("the stream");
    if (status == EOSFM_OK) {
      *result = stream;
    } else {
      unmake(allocator, stream);
    }
    return status;
  });
}

eosfm_status eosfm_stream_push_rows(eosfm_stream* stream, int32_t band, const void* rows, int32_t count,
                                    int32_t width, int32_t* taken) {
  return alone(stream, [&] { return stream->push_rows(band, rows, count, width, taken); });
}

eosfm_status eosfm_stream_end(eosfm_stream* stream) {
  return alone(stream, [&] {
    stream->end();
    return EOSFM_OK;
  });
}

eosfm_status eosfm_stream_reset(eosfm_stream* stream) {
  return alone(stream, [&] {
    stream->reset();
    return EOSFM_OK;
  });
}

eosfm_status eosfm_stream_pull_patch(eosfm_stream* stream, const eosfm_run_options* options,
                                     eosfm_patch* patch) {
  return alone(stream, [&] { return stream->next(options, patch); });
}

void eosfm_stream_destroy(eosfm_stream* stream) {
  if (stream != nullptr) unmake(stream->context()->model()->memory.allocator(), stream);
}
