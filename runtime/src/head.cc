#include "head.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cells.h"
#include "image.h"
#include "levels.h"
#include "structs.h"

namespace eosfm {
namespace {

constexpr int kMostCells = 1024 / 4;   // of a row of the finest level
constexpr int kStripRows = 16;         // of one task
constexpr int kKnownStep = 5;  // of the known answer's cells: coprime to 8, so that it meets every phase
constexpr float kKnownTolerance = 1e-3F;  // of its largest value: what sums of float32 leave

// The place of a cell among those of a coarser level: between two of them, by their centres.
struct Place {
  int before;
  int after;
  float share;  // of the one after
};

Place place_of(int cell, int ratio, int count) {
  const float at = fmaxf((static_cast<float>(cell) + 0.5F) / static_cast<float>(ratio) - 0.5F, 0.0F);
  const int before = static_cast<int>(at);
  return {before, before + 1 < count ? before + 1 : count - 1, at - static_cast<float>(before)};
}

// Rows of one output at a coarser level, of which two are needed at a time, each computed once.
struct RowPair {
  int row[2] = {-1, -1};
  float values[2][kMostCells / 2];
  Place across[kMostCells];  // of the finest level's cells
};

}  // namespace
}  // namespace eosfm

using namespace eosfm;

// Adds the level's share of an output to a row of its cells: four channels while a cell is at hand, one after another.
void eosfm_head::add_products(const eosfm_level& level, int index, int output, int y, int width,
                              float* __restrict__ row) const {
  const int channels = model_->chain.level_channels[index];
  const ptrdiff_t stride = level.channel_stride;
  const float* weights = weights_[index] + static_cast<size_t>(output) * channels;
  const float* from = level.data + y * level.row_stride;
  int c = 0;
  for (; c + 4 <= channels; c += 4, from += 4 * stride) {
    const float* w = weights + c;
    for (int x = 0; x < width; ++x) {
      row[x] = row[x] + w[0] * from[x] + w[1] * from[stride + x] + w[2] * from[2 * stride + x] +
               w[3] * from[3 * stride + x];
    }
  }
  for (; c < channels; ++c, from += stride) {
    for (int x = 0; x < width; ++x) row[x] += weights[c] * from[x];
  }
}

void eosfm_head::compute_rows(const eosfm_level* levels, int width, int height, int output, int first,
                              int rows, float* plane, ptrdiff_t row_stride) const {
  RowPair pairs[kLevels];
  float mixed[kMostCells / 2];
  for (int l = level_ + 1; l < kLevels; ++l) {
    const int ratio = 1 << (l - level_);
    for (int x = 0; reads(l) && x < width; ++x) pairs[l].across[x] = place_of(x, ratio, width / ratio);
  }
  for (int y = first; y < first + rows; ++y) {
    float* row = plane + y * row_stride;
    for (int x = 0; x < width; ++x) row[x] = bias_[output];
    add_products(levels[level_], level_, output, y, width, row);
    for (int l = level_ + 1; l < kLevels; ++l) {
      if (!reads(l)) continue;
      const int ratio = 1 << (l - level_);
      const int coarse_width = width / ratio;
      const Place down = place_of(y, ratio, height / ratio);
      RowPair& pair = pairs[l];
      for (int wanted = down.before; wanted <= down.after; ++wanted) {
        const int slot = wanted & 1;
        if (pair.row[slot] == wanted) continue;
        memset(pair.values[slot], 0, static_cast<size_t>(coarse_width) * sizeof(float));
        add_products(levels[l], l, output, wanted, coarse_width, pair.values[slot]);
        pair.row[slot] = wanted;
      }
      const float* above = pair.values[down.before & 1];
      const float* below = pair.values[down.after & 1];
      for (int x = 0; x < coarse_width; ++x) mixed[x] = above[x] + down.share * (below[x] - above[x]);
      for (int x = 0; x < width; ++x) {
        const Place& across = pair.across[x];
        row[x] += mixed[across.before] + across.share * (mixed[across.after] - mixed[across.before]);
      }
    }
  }
}

void eosfm_head::compute(const eosfm_level* levels, int image_width, int image_height, const eosfm_level& to,
                         Team& team) const {
  const int width = cells(image_width, level_);
  const int height = cells(image_height, level_);
  const int strips = (height + kStripRows - 1) / kStripRows;
  team.each(outputs_ * strips, [&](int task, int) {
    const int output = task / strips;
    const int first = task % strips * kStripRows;
    const int rows = first + kStripRows < height ? kStripRows : height - first;
    compute_rows(levels, width, height, output, first, rows, to.data + output * to.channel_stride,
                 to.row_stride);
  });
}

void eosfm_head::normalise(const eosfm_level& outputs, int width, int height) const {
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      float* cell = outputs.data + y * outputs.row_stride + x;
      float largest = cell[0];
      for (int k = 1; k < outputs_; ++k) largest = fmaxf(largest, cell[k * outputs.channel_stride]);
      float sum = 0.0F;
      for (int k = 0; k < outputs_; ++k) {
        float& value = cell[k * outputs.channel_stride];
        value = expf(value - largest);
        sum += value;
      }
      for (int k = 0; k < outputs_; ++k) cell[k * outputs.channel_stride] /= sum;
    }
  }
}

void eosfm_head::classify(const eosfm_level& outputs, int width, int height, uint8_t* to,
                          ptrdiff_t row_stride) const {
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const float* cell = outputs.data + y * outputs.row_stride + x;
      int best = 0;
      bool is_number = true;
      for (int k = 0; k < outputs_; ++k) {
        const float value = cell[k * outputs.channel_stride];
        is_number = is_number && isfinite(value);
        if (value > cell[best * outputs.channel_stride]) best = k;
      }
      to[y * row_stride + x] = is_number ? classes_[best].code : EOSFM_NO_CLASS;
    }
  }
}

eosfm_status eosfm_head::apply(const eosfm_level* given_levels, int width, int height,
                               const eosfm_map* given_map, ErrorText& error) const {
  const auto fits = [](int side) { return side >= 32 && side <= kMostSide && side % 32 == 0; };
  if (!fits(width) || !fits(height)) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "the image is %d x %d pixels, expected multiples of 32 from 32 to %d", width, height,
                      kMostSide);
  }
  eosfm_level levels[kLevels];
  eosfm_status status = read_levels(given_levels, model_->chain, width, height, levels, error);
  if (status == EOSFM_OK) status = check_struct(given_map, error);
  if (status != EOSFM_OK) return status;
  for (int level = 0; level < kLevels; ++level) {
    if (!reads(level) || levels[level].data != nullptr) continue;
    return error.fail(EOSFM_BAD_ARGUMENT, "level %d is NULL, which the head %s reads", level + 1, name_);
  }
  const eosfm_map map = read_struct(given_map);
  const ptrdiff_t columns = cells(width, level_);
  const ptrdiff_t rows = cells(height, level_);
  const eosfm_level outputs = {sizeof(eosfm_level), map.outputs, map.channel_stride, map.row_stride};
  if (map.outputs == nullptr || reinterpret_cast<uintptr_t>(map.outputs) % alignof(float) != 0 ||
      !strides_fit(outputs, outputs_, columns, rows) ||
      (map.classes != nullptr && map.class_stride < columns)) {
    return error.fail(
        EOSFM_BAD_ARGUMENT,
        "the map's outputs are NULL or not aligned, or its strides are too small for rows of %td "
        "cells and planes of %td rows",
        columns, rows);
  }
  if (task_ != EOSFM_CLASSES && (map.classes != nullptr || map.probabilities != 0)) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "the head %s is a regression: it has neither classes nor probabilities", name_);
  }
  Stop never;
  Team alone(nullptr, &never);
  compute(levels, width, height, outputs, alone);
  const int w = static_cast<int>(columns);
  const int h = static_cast<int>(rows);
  if (map.classes != nullptr) classify(outputs, w, h, map.classes, map.class_stride);
  if (map.probabilities != 0) normalise(outputs, w, h);
  return EOSFM_OK;
}

void eosfm_head::drop(eosfm_head* head) {
  if (head->references_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  eosfm_model* model = head->model_;
  unmake(model->memory.allocator(), head);
  eosfm_model::drop(model);
}

eosfm_status eosfm_head::load(const char* name, ErrorText& error) {
  char path[160];
  const int length = snprintf(path, sizeof path, "heads/%s.gguf", name);
  if (strchr(name, '/') != nullptr || *name == '\0' || length >= static_cast<int>(sizeof path)) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "'%.100s' is no name of a head, expected that of a file in heads/, without .gguf",
                      name);
  }
  FileBytes bytes;
  Gguf file;
  eosfm_status status = model_->files.open(path, &bytes, error);
  if (status == EOSFM_OK) status = file.parse(model_->memory.allocator(), bytes.bytes(), path, error);
  if (status == EOSFM_OK) status = file.expect("eosfm-head", kFormatVersion, error);
  if (status == EOSFM_OK) status = file.read_text("general.name", name_, sizeof name_, error);
  if (status == EOSFM_OK) status = parse(file, error);
  if (status == EOSFM_OK) status = copy_weights(file, error);
  if (status == EOSFM_OK) status = check_known_answer(file, error);
  return status;
}

eosfm_status eosfm_head::parse(const Gguf& file, ErrorText& error) {
  char task[32];
  uint32_t count = 0;
  eosfm_status status = file.read_text("eosfm.head.task", task, sizeof task, error);
  if (status != EOSFM_OK) return status;
  if (strcmp(task, "classes") != 0 && strcmp(task, "regression") != 0) {
    return error.fail(EOSFM_BAD_BUNDLE, "eosfm.head.task of %s is '%s', expected classes or regression",
                      file.file_name(), task);
  }
  task_ = strcmp(task, "classes") == 0 ? EOSFM_CLASSES : EOSFM_REGRESSION;
  const Tensor* bias = file.find_tensor("bias");
  const int64_t least = task_ == EOSFM_CLASSES ? 2 : 1;
  if (bias == nullptr || bias->dimensions != 1 || bias->shape[0] < least || bias->shape[0] > kMostOutputs) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s has no vector bias of %d to %d outputs", file.file_name(),
                      static_cast<int>(least), kMostOutputs);
  }
  outputs_ = static_cast<int>(bias->shape[0]);
  status = file.read_count("eosfm.head.levels", 1, kLevels, &count, error);
  for (uint32_t i = 0; status == EOSFM_OK && i < count; ++i) {
    uint32_t number = 0;
    status = file.read_uint_at("eosfm.head.levels", i, 1, kLevels, &number, error);
    if (status != EOSFM_OK) return status;
    const int level = static_cast<int>(number) - 1;
    for (int finer = level; finer < kLevels; ++finer) {
      if (!reads_[finer]) continue;
      return error.fail(EOSFM_BAD_BUNDLE, "eosfm.head.levels of %s do not rise", file.file_name());
    }
    reads_[level] = true;  // NOLINT(clang-analyzer-security.ArrayBound): number is 1 to kLevels
    if (i == 0) level_ = level;
  }
  return status == EOSFM_OK && task_ == EOSFM_CLASSES ? parse_classes(file, error) : status;
}

eosfm_status eosfm_head::parse_classes(const Gguf& file, ErrorText& error) {
  const uint32_t wanted = static_cast<uint32_t>(outputs_);
  uint32_t count = 0;
  eosfm_status status = file.read_count("eosfm.head.classes", wanted, wanted, &count, error);
  if (status == EOSFM_OK) status = file.read_count("eosfm.head.codes", wanted, wanted, &count, error);
  if (status == EOSFM_OK) {
    status = file.read_count("eosfm.head.colours", 3 * wanted, 3 * wanted, &count, error);
  }
  if (status != EOSFM_OK) return status;
  if (!classes_.allocate(file.allocator(), outputs_)) return error.no_memory("the classes");
  bool is_taken[EOSFM_NO_CLASS] = {};
  for (uint32_t i = 0; status == EOSFM_OK && i < wanted; ++i) {
    HeadClass& one = classes_[static_cast<int>(i)];
    uint32_t value = 0;
    status = file.read_text_at("eosfm.head.classes", i, one.name, sizeof one.name, error);
    if (status == EOSFM_OK) {
      status = file.read_uint_at("eosfm.head.codes", i, 0, EOSFM_NO_CLASS - 1, &value, error);
    }
    if (status != EOSFM_OK) return status;
    if (is_taken[value]) {
      return error.fail(EOSFM_BAD_BUNDLE, "two classes of %s have the code %u", file.file_name(), value);
    }
    is_taken[value] = true;
    one.code = static_cast<uint8_t>(value);
    for (uint32_t c = 0; status == EOSFM_OK && c < 3; ++c) {
      status = file.read_uint_at("eosfm.head.colours", 3 * i + c, 0, 255, &value, error);
      one.colour[c] = static_cast<uint8_t>(value);
    }
  }
  return status;
}

// Copies the weights out of the file, whose tensors are [channels][outputs] and need not be aligned.
eosfm_status eosfm_head::copy_weights(const Gguf& file, ErrorText& error) {
  Tensor tensors[kLevels];
  Layout sizes;
  sizes.take<float>(static_cast<size_t>(outputs_));
  for (int level = 0; level < kLevels; ++level) {
    if (!reads_[level]) continue;
    char name[32];
    snprintf(name, sizeof name, "level%d.weight", level + 1);
    const int64_t shape[] = {model_->chain.level_channels[level], outputs_};
    const eosfm_status status = file.read_tensor(name, "f", 2, shape, &tensors[level], error);
    if (status != EOSFM_OK) return status;
    sizes.take<float>(static_cast<size_t>(shape[0] * shape[1]));
  }
  Tensor bias;
  const int64_t outputs[] = {outputs_};
  const eosfm_status status = file.read_tensor("bias", "f", 1, outputs, &bias, error);
  if (status != EOSFM_OK) return status;
  if (!memory_.allocate(file.allocator(), sizes.size())) return error.no_memory("the head");
  Layout layout(memory_.data());
  bias_ = layout.take<float>(static_cast<size_t>(outputs_));
  memcpy(bias_, bias.data, static_cast<size_t>(outputs_) * sizeof(float));
  for (int level = 0; level < kLevels; ++level) {
    if (!reads_[level]) continue;
    const size_t channels = static_cast<size_t>(model_->chain.level_channels[level]);
    weights_[level] = layout.take<float>(channels * outputs_);
    for (size_t c = 0; c < channels; ++c) {
      for (int k = 0; k < outputs_; ++k) {
        memcpy(weights_[level] + k * channels + c, tensors[level].data + 4 * (c * outputs_ + k),
               sizeof(float));
      }
    }
  }
  return EOSFM_OK;
}

// Applies the head to the levels of the bundle's known answer. A head of other features gives other outputs.
eosfm_status eosfm_head::check_known_answer(const Gguf& file, ErrorText& error) const {
  const Chain& chain = model_->chain;
  const int side = cells(chain.tile, level_);
  const int known_side = (side + kKnownStep - 1) / kKnownStep;
  const int64_t shape[] = {outputs_, known_side, known_side};
  Tensor known;
  const eosfm_status status = file.read_tensor("known.outputs", "f", 3, shape, &known, error);
  if (status != EOSFM_OK) return status;
  Layout sizes;
  size_t plane[kLevels];
  for (int l = 0; l < kLevels; ++l) {
    plane[l] = static_cast<size_t>(cells(chain.tile, l)) * cells(chain.tile, l);
    if (reads(l)) sizes.take<float>(plane[l] * chain.level_channels[l]);
  }
  sizes.take<float>(plane[level_] * outputs_);
  Span span;
  if (!span.allocate(model_->memory.allocator(), sizes.size())) return error.no_memory("the known answer");
  Layout layout(span.data());
  eosfm_level levels[kLevels];
  for (int l = 0; l < kLevels; ++l) {
    if (!reads(l)) continue;
    float* copy = layout.take<float>(plane[l] * chain.level_channels[l]);
    memcpy(copy, chain.known_level(l)->data, plane[l] * chain.level_channels[l] * sizeof(float));
    levels[l] = {sizeof(eosfm_level), copy, static_cast<ptrdiff_t>(plane[l]), cells(chain.tile, l)};
  }
  float* outputs = layout.take<float>(plane[level_] * outputs_);
  for (int k = 0; k < outputs_; ++k) {
    compute_rows(levels, side, side, k, 0, side, outputs + plane[level_] * k, side);
  }
  double peak = 0.0;
  double worst = 0.0;
  for (int i = 0; i < outputs_ * known_side * known_side; ++i) {
    const int k = i / (known_side * known_side);
    const int y = i / known_side % known_side * kKnownStep;
    const int x = i % known_side * kKnownStep;
    float expected;
    memcpy(&expected, known.data + 4 * static_cast<size_t>(i), sizeof expected);
    const float found = outputs[plane[level_] * k + static_cast<size_t>(y) * side + x];
    const double difference = fabs(static_cast<double>(found) - static_cast<double>(expected));
    peak = fmax(peak, fabs(static_cast<double>(expected)));
    worst = isfinite(difference) ? fmax(worst, difference) : INFINITY;
  }
  if (worst <= static_cast<double>(kKnownTolerance) * peak) return EOSFM_OK;
  return error.fail(
      EOSFM_WRONG_ANSWER,
      "%s gives another answer than its own to this bundle's known image, off by %.2g of %.2g: it was "
      "fitted for the features of another bundle, or is damaged",
      file.file_name(), worst, peak);
}
