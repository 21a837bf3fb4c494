// libeosfm for C++17: handles that close themselves, and results instead of out-parameters. Header only, over
// eosfm.h, which is the manual: structs, their defaults and the rules of threads and lifetimes are as there.
//
//   eosfm::Result<eosfm::Model> model = eosfm::Model::open("six.eosfm");
//   if (!model.ok()) return fail(model.sentence());
//   eosfm::Result<eosfm::Context> context = model->create_context();
//   ...
//   const eosfm::Status status = context->run(image, levels);
//
// Nothing here throws or allocates, and it compiles with -fno-exceptions. An empty handle may be called: it
// returns EOSFM_BAD_ARGUMENT, as its functions do for NULL. A context outlives the model that made it; a stream
// must be destroyed before its context.
#ifndef EOSFM_HPP
#define EOSFM_HPP

#include <eosfm.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <utility>

namespace eosfm {

// The status of a call, and its sentence if it failed.
class Status {
 public:
  Status() = default;
  // Copies the sentence. Those of statuses that have none, as EOSFM_AGAIN, are a few words.
  Status(eosfm_status code, const char* sentence, std::int32_t error_code = 0) : code_(code) {
    if (code == EOSFM_OK) return;
    const bool has_sentence = code != EOSFM_AGAIN && code != EOSFM_END && code != EOSFM_BUSY &&
                              sentence != nullptr && *sentence != '\0';
    error_code_ = has_sentence ? error_code : 0;
    std::snprintf(sentence_.data(), sentence_.size(), "%s",
                  has_sentence ? sentence : eosfm_status_get_text(code));
  }

  bool ok() const noexcept { return code_ == EOSFM_OK; }
  eosfm_status code() const noexcept { return code_; }
  // Returns the sentence: what was found and what was expected; "" for EOSFM_OK. Lives as long as this object.
  const char* sentence() const noexcept { return sentence_.data(); }
  // Returns the code beneath the failure: the system's errno or the engine's; 0 if there is none.
  std::int32_t error_code() const noexcept { return error_code_; }

 private:
  eosfm_status code_ = EOSFM_OK;
  std::int32_t error_code_ = 0;
  std::array<char, 512> sentence_ = {};
};

// A value or a failure. After a failure the value is empty, or has its struct's defaults.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value, const Status& status) : value_(std::move(value)), status_(status) {}

  bool ok() const noexcept { return status_.ok(); }
  eosfm_status code() const noexcept { return status_.code(); }
  const char* sentence() const noexcept { return status_.sentence(); }
  std::int32_t error_code() const noexcept { return status_.error_code(); }
  const Status& status() const noexcept { return status_; }

  T& value() noexcept { return value_; }
  const T& value() const noexcept { return value_; }
  T& operator*() noexcept { return value_; }
  const T& operator*() const noexcept { return value_; }
  T* operator->() noexcept { return &value_; }
  const T* operator->() const noexcept { return &value_; }

 private:
  T value_;
  Status status_;
};

// Return the version of the loaded library: "0.1.0", and its EOSFM_VERSION_NUMBER.
inline const char* library_version() noexcept { return eosfm_library_get_version(); }
inline std::int32_t library_version_number() noexcept { return eosfm_library_get_version_number(); }

// An engine that this version knows, and whether it is here.
struct EngineInfo {
  const char* name = "";  // lives for ever
  Status availability;  // as eosfm_engine_info.status, with the reason as its sentence
  const char* isa = nullptr;  // as eosfm_engine_info.isa
};

// Describes the engine `index`, from 0; EOSFM_END behind the last.
inline Result<EngineInfo> describe_engine(std::int32_t index) {
  char reason[512] = "";
  eosfm_engine_info info = EOSFM_ENGINE_INFO_INIT;
  info.reason = reason;
  info.reason_size = sizeof reason;
  const Status status(eosfm_library_describe_engine(index, &info), "");
  if (!status.ok()) return {EngineInfo(), status};
  return {EngineInfo{info.name, Status(static_cast<eosfm_status>(info.status), reason), info.isa}, status};
}

struct Closer {
  void operator()(eosfm_model* model) const noexcept { eosfm_model_close(model); }
  void operator()(eosfm_context* context) const noexcept { eosfm_context_destroy(context); }
  void operator()(eosfm_stream* stream) const noexcept { eosfm_stream_destroy(stream); }
  void operator()(eosfm_head* head) const noexcept { eosfm_head_close(head); }
};

// The patch that a tile of a stream completes. Its data belongs to the stream and lasts until the next patch.
class Patch {
 public:
  Patch() = default;
  Patch(const Patch&) = delete;
  Patch& operator=(const Patch&) = delete;

  const eosfm_patch& operator*() const noexcept { return patch_; }
  const eosfm_patch* operator->() const noexcept { return &patch_; }
  const eosfm_patch_level& level(int index) const { return levels_[static_cast<std::size_t>(index)]; }
  // Returns the part of the stream's head of this index.
  const eosfm_patch_map& map(int index) const { return maps_[static_cast<std::size_t>(index)]; }

 private:
  friend class Stream;
  eosfm_patch patch_ = EOSFM_PATCH_INIT;
  std::array<eosfm_patch_level, EOSFM_LEVELS> levels_ = {EOSFM_PATCH_LEVELS_INIT};
  std::array<eosfm_patch_map, EOSFM_MOST_HEADS> maps_ = {};
};

// A head of a model's bundle. A stream keeps the heads that it was created with.
class Head {
 public:
  Head() = default;
  // Takes over a head of a model.
  Head(eosfm_model* model, eosfm_head* head) : model_(model), handle_(head) {}

  Result<eosfm_head_info> describe() const {
    eosfm_head_info info = EOSFM_HEAD_INFO_INIT;
    const Status status = status_of(eosfm_head_describe(get(), &info));
    return {info, status};
  }
  Result<eosfm_class_info> describe_class(std::int32_t index) const {
    eosfm_class_info info = EOSFM_CLASS_INFO_INIT;
    const Status status = status_of(eosfm_head_describe_class(get(), index, &info));
    return {info, status};
  }
  [[nodiscard]] Status apply(const eosfm_level (&levels)[EOSFM_LEVELS], std::int32_t width,
                             std::int32_t height, const eosfm_map& map) const {
    return status_of(eosfm_head_apply(get(), levels, width, height, &map));
  }

  eosfm_head* get() const noexcept { return handle_.get(); }

 private:
  Status status_of(eosfm_status code) const {
    return {code, eosfm_model_get_error(model_), eosfm_model_get_error_code(model_)};
  }

  eosfm_model* model_ = nullptr;  // which the head keeps
  std::unique_ptr<eosfm_head, Closer> handle_;
};

class Stream {
 public:
  Stream() = default;
  // Takes over a stream of a context.
  Stream(eosfm_context* context, eosfm_stream* stream) : context_(context), handle_(stream) {}

  // Returns how many rows had room.
  Result<std::int32_t> push_rows(std::int32_t band, const void* rows, std::int32_t count,
                                 std::int32_t width) {
    std::int32_t taken = 0;
    const Status status = status_of(eosfm_stream_push_rows(get(), band, rows, count, width, &taken));
    return {taken, status};
  }
  [[nodiscard]] Status end() { return status_of(eosfm_stream_end(get())); }

  // Begins another scene with the same options, without allocating.
  [[nodiscard]] Status reset() { return status_of(eosfm_stream_reset(get())); }

  // Computes the next patch. EOSFM_AGAIN: push more rows first. EOSFM_END: there are no more patches.
  [[nodiscard]] Status pull_patch(Patch& patch, const eosfm_run_options& options = EOSFM_RUN_OPTIONS_INIT) {
    patch.patch_.levels = patch.levels_.data();
    for (eosfm_patch_map& map : patch.maps_) map.struct_size = sizeof map;
    patch.patch_.maps = patch.maps_.data();
    return status_of(eosfm_stream_pull_patch(get(), &options, &patch.patch_));
  }

  eosfm_stream* get() const noexcept { return handle_.get(); }

 private:
  Status status_of(eosfm_status code) const {
    return {code, eosfm_context_get_error(context_), eosfm_context_get_error_code(context_)};
  }

  eosfm_context* context_ = nullptr;
  std::unique_ptr<eosfm_stream, Closer> handle_;
};

class Context {
 public:
  Context() = default;
  // Takes over a context.
  explicit Context(eosfm_context* context) : handle_(context) {}

  [[nodiscard]] Status run(const eosfm_image& image, const eosfm_level (&levels)[EOSFM_LEVELS],
                           const eosfm_run_options& options = EOSFM_RUN_OPTIONS_INIT) {
    return status_of(eosfm_context_run(get(), &image, levels, &options));
  }
  // Ends the current run and later ones, until resume(). Any thread may call both.
  void cancel() const noexcept { eosfm_context_cancel(get()); }
  void resume() const noexcept { eosfm_context_resume(get()); }

  // Returns each level's largest difference over its largest value, also with EOSFM_WRONG_ANSWER.
  Result<std::array<double, EOSFM_LEVELS>> verify() {
    std::array<double, EOSFM_LEVELS> worst = {};
    const Status status = status_of(eosfm_context_verify(get(), worst.data()));
    return {worst, status};
  }
  // Returns how far verify lets each level be off, in parts of its largest value.
  Result<std::array<double, EOSFM_LEVELS>> tolerance() {
    std::array<double, EOSFM_LEVELS> allowed = {};
    const Status status = status_of(eosfm_context_get_tolerance(get(), allowed.data()));
    return {allowed, status};
  }

  [[nodiscard]] Status set_active(const std::uint8_t* active, std::size_t count) {
    return status_of(eosfm_context_set_active(get(), active, count));
  }
  [[nodiscard]] Status set_grn(eosfm_grn mode) { return status_of(eosfm_context_set_grn(get(), mode)); }

  Result<eosfm_statistics> measure() {
    eosfm_statistics statistics = EOSFM_STATISTICS_INIT;
    const Status status = status_of(eosfm_context_measure(get(), &statistics));
    return {statistics, status};
  }
  Result<eosfm_specialist_statistics> measure_specialist(std::int32_t index) {
    eosfm_specialist_statistics statistics = EOSFM_SPECIALIST_STATISTICS_INIT;
    const Status status = status_of(eosfm_context_measure_specialist(get(), index, &statistics));
    return {statistics, status};
  }

  // Returns the bytes that a stream allocates.
  Result<std::size_t> stream_bytes(const eosfm_stream_options& options) {
    std::size_t bytes = 0;
    const Status status = status_of(eosfm_context_get_stream_bytes(get(), &options, &bytes));
    return {bytes, status};
  }
  Result<Stream> create_stream(const eosfm_stream_options& options) {
    eosfm_stream* stream = nullptr;
    const Status status = status_of(eosfm_stream_create(get(), &options, &stream));
    return {Stream(get(), stream), status};
  }

  const char* backend() const noexcept { return eosfm_context_get_backend(get()); }
  eosfm_context* get() const noexcept { return handle_.get(); }

 private:
  Status status_of(eosfm_status code) const {
    return {code, eosfm_context_get_error(get()), eosfm_context_get_error_code(get())};
  }

  std::unique_ptr<eosfm_context, Closer> handle_;
};

class Model {
 public:
  Model() = default;
  // Takes over a model.
  explicit Model(eosfm_model* model) : handle_(model) {}

  // Opens the bundle in a directory. Memory comes from options.allocator, where there is one.
  static Result<Model> open(const char* directory, eosfm_open_options options = EOSFM_OPEN_OPTIONS_INIT) {
    return open_with(options,
                     [&](eosfm_model** model) { return eosfm_model_open(directory, &options, model); });
  }
  // Opens a bundle in memory. The files must not change until the model is closed.
  static Result<Model> open_memory(const eosfm_file* files, std::size_t count,
                                   eosfm_open_options options = EOSFM_OPEN_OPTIONS_INIT) {
    return open_with(
        options, [&](eosfm_model** model) { return eosfm_model_open_memory(files, count, &options, model); });
  }

  Result<eosfm_model_info> describe() const {
    eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
    const Status status = status_of(eosfm_model_describe(get(), &info));
    return {info, status};
  }
  Result<eosfm_band_info> describe_band(std::int32_t index) const {
    eosfm_band_info info = EOSFM_BAND_INFO_INIT;
    const Status status = status_of(eosfm_model_describe_band(get(), index, &info));
    return {info, status};
  }
  Result<eosfm_specialist_info> describe_specialist(std::int32_t index) const {
    eosfm_specialist_info info = EOSFM_SPECIALIST_INFO_INIT;
    const Status status = status_of(eosfm_model_describe_specialist(get(), index, &info));
    return {info, status};
  }

  // Opens a head of the bundle by its name.
  Result<Head> open_head(const char* name) const {
    eosfm_head* head = nullptr;
    const Status status = status_of(eosfm_head_open(get(), name, &head));
    return {Head(get(), head), status};
  }

  Result<eosfm_requirements> requirements(
      const eosfm_context_options& options = EOSFM_CONTEXT_OPTIONS_INIT) const {
    eosfm_requirements needs = EOSFM_REQUIREMENTS_INIT;
    const Status status = status_of(eosfm_model_get_requirements(get(), &options, &needs));
    return {needs, status};
  }
  Result<Context> create_context(const eosfm_context_options& options = EOSFM_CONTEXT_OPTIONS_INIT) const {
    eosfm_context* context = nullptr;
    const Status status = status_of(eosfm_context_create(get(), &options, &context));
    return {Context(context), status};
  }

  eosfm_model* get() const noexcept { return handle_.get(); }

 private:
  // Opens with a buffer for the sentence, if the caller gives none.
  template <class Open>
  static Result<Model> open_with(eosfm_open_options& options, const Open& open) {
    char sentence[512] = "";
    if (options.error == nullptr) {
      options.error = sentence;
      options.error_size = sizeof sentence;
    }
    std::int32_t error_code = 0;
    if (options.error_code == nullptr) options.error_code = &error_code;
    eosfm_model* model = nullptr;
    const eosfm_status code = open(&model);
    return {Model(model), Status(code, options.error, *options.error_code)};
  }
  Status status_of(eosfm_status code) const {
    return {code, eosfm_model_get_error(get()), eosfm_model_get_error_code(get())};
  }

  std::unique_ptr<eosfm_model, Closer> handle_;
};

}  // namespace eosfm

#endif
