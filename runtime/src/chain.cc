#include "chain.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

namespace eosfm {
namespace {

constexpr char kKnownTolerances[] = "eosfm.known.tolerances";  // of the library's own engines

float float_at(const Tensor& tensor, int64_t i) {
  float value;
  memcpy(&value, tensor.data + 4 * i, sizeof value);
  return value;
}

int padded_to(int channels, int lanes) {
  return static_cast<int>(round_up(static_cast<size_t>(channels), static_cast<size_t>(lanes)));
}

// Returns the index of a text in a list that ends with null; -1 if the list lacks it.
int index_of(const char* text, const char* const* list) {
  for (int i = 0; list[i] != nullptr; ++i) {
    if (strcmp(text, list[i]) == 0) return i;
  }
  return -1;
}

eosfm_status read_choice(const Gguf& file, const char* key, const char* const* choices, int* choice,
                         ErrorText& error) {
  char text[32];
  const eosfm_status status = file.read_text(key, text, sizeof text, error);
  if (status != EOSFM_OK) return status;
  *choice = index_of(text, choices);
  if (*choice >= 0) return EOSFM_OK;
  return error.fail(EOSFM_BAD_BUNDLE, "%s of %s is '%s', which is not known", key, file.file_name(), text);
}

// Returns whether a path is relative, stays inside the bundle and is the only spelling of its file: no part is empty,
// "." or "..".
bool inside(const char* path) {
  if (strchr(path, '\\') != nullptr) return false;
  for (const char* part = path;;) {
    const size_t length = strcspn(part, "/");
    if (length == 0 || strncmp(part, "..", length) == 0) return false;
    if (part[length] == '\0') return true;
    part += length + 1;
  }
}

eosfm_status check_inside(const char* path, const Gguf& file, ErrorText& error) {
  if (inside(path)) return EOSFM_OK;
  return error.fail(EOSFM_BAD_BUNDLE, "%s names a file outside the bundle, or not by its plain path: %s",
                    file.file_name(), path);
}

}  // namespace

eosfm_status Chain::parse(const eosfm_allocator& allocator, Bytes bytes, const char* file_name,
                          ErrorText& error) {
  eosfm_status status = file.parse(allocator, bytes, file_name, error);
  if (status != EOSFM_OK) return status;
  uint32_t value = 0;
  status = file.expect("eosfm-chain", kFormatVersion, error);
  if (status == EOSFM_OK) status = file.read_text("general.name", name, sizeof name, error);
  if (status == EOSFM_OK) status = file.read_uint("eosfm.tile", 32, 1024, &value, error);
  if (status != EOSFM_OK) return status;
  tile = static_cast<int>(value);
  if (tile % 32 != 0) {
    return error.fail(EOSFM_BAD_BUNDLE, "eosfm.tile of %s is %d, expected a multiple of 32", file_name, tile);
  }
  status = parse_bands(error);
  if (status == EOSFM_OK) status = parse_specialists(error);
  if (status == EOSFM_OK) status = parse_modes(error);
  if (status == EOSFM_OK) status = parse_runs(error);
  if (status == EOSFM_OK) status = parse_graphs(error);
  if (status == EOSFM_OK) status = check_known_answer(error);
  return status;
}

eosfm_status Chain::parse_bands(ErrorText& error) {
  uint32_t count = 0;
  eosfm_status status = file.read_count("eosfm.input.names", 1, kMostBands, &count, error);
  if (status != EOSFM_OK) return status;
  if (!bands.allocate(file.allocator(), static_cast<int>(count))) return error.no_memory("the bands");
  for (uint32_t i = 0; i < count; ++i) {
    Band& band = bands[static_cast<int>(i)];
    uint32_t has_nodata = 0;
    status = file.read_text_at("eosfm.input.names", i, band.name, sizeof band.name, error);
    const struct {
      const char* key;
      float* value;
    } floats[] = {{"eosfm.input.wavelengths_nm", &band.wavelength_nm},
                  {"eosfm.input.scales", &band.scale},
                  {"eosfm.input.offsets", &band.offset},
                  {"eosfm.input.fills", &band.fill},
                  {"eosfm.input.nodata", &band.nodata}};
    for (const auto& one : floats) {
      if (status == EOSFM_OK) status = file.read_float_at(one.key, i, one.value, error);
    }
    if (status == EOSFM_OK) {
      status = file.read_uint_at("eosfm.input.has_nodata", i, 0, 1, &has_nodata, error);
    }
    if (status != EOSFM_OK) return status;
    band.has_nodata = has_nodata == 1;
    band.physical_scale = band.scale;
    band.physical_offset = band.offset;
    if (file.has("eosfm.input.physical_scales")) {
      status = file.read_float_at("eosfm.input.physical_scales", i, &band.physical_scale, error);
      if (status == EOSFM_OK) {
        status = file.read_float_at("eosfm.input.physical_offsets", i, &band.physical_offset, error);
      }
      if (status != EOSFM_OK) return status;
    }
    if (band.scale == 0.0F || band.physical_scale == 0.0F) {
      return error.fail(EOSFM_BAD_BUNDLE, "the scale of band %s of %s is 0", band.name, file.file_name());
    }
  }
  return EOSFM_OK;
}

eosfm_status Chain::parse_specialists(ErrorText& error) {
  uint32_t count = 0;
  eosfm_status status = file.read_count("eosfm.specialists.names", 1, kMostSpecialists, &count, error);
  if (status != EOSFM_OK) return status;
  if (!specialists.allocate(file.allocator(), static_cast<int>(count)))
    return error.no_memory("the specialists");
  static constexpr char kDigests[] = "eosfm.specialists.tensors_sha256";
  for (uint32_t i = 0; i < count; ++i) {
    ChainSpecialist& one = specialists[static_cast<int>(i)];
    status = file.read_text_at("eosfm.specialists.names", i, one.name, sizeof one.name, error);
    if (status == EOSFM_OK) {
      status = file.read_text_at("eosfm.specialists.files", i, one.file, sizeof one.file, error);
    }
    if (status == EOSFM_OK) {
      status = file.read_float_at("eosfm.specialists.factors", i, &one.factor, error);
    }
    if (status == EOSFM_OK && file.has(kDigests)) {
      status = file.read_text_at(kDigests, i, one.digest, sizeof one.digest, error);
    }
    if (status == EOSFM_OK) status = check_inside(one.file, file, error);
    if (status != EOSFM_OK) return status;
    // Weights are packed for each specialist: one file named 256 times would take 256 times its size.
    for (uint32_t other = 0; other < i; ++other) {
      if (strcmp(one.file, specialists[static_cast<int>(other)].file) != 0) continue;
      return error.fail(EOSFM_BAD_BUNDLE, "%s names %s for two specialists, expected a file for each",
                        file.file_name(), one.file);
    }
  }
  return EOSFM_OK;
}

eosfm_status Chain::parse_tolerances(const char* key, float (&tolerances)[kLevels], ErrorText& error) {
  uint32_t count = 0;
  eosfm_status status = file.read_count(key, kLevels, kLevels, &count, error);
  for (uint32_t level = 0; status == EOSFM_OK && level < kLevels; ++level) {
    status = file.read_float_at(key, level, &tolerances[level], error);
  }
  return status;
}

// Reads the graphs. A bundle may lack them, or lack the weights that native and cuda compute from.
eosfm_status Chain::parse_graphs(ErrorText& error) {
  static constexpr char kFiles[] = "eosfm.graphs.files";
  if (!file.has(kFiles)) return parse_tolerances(kKnownTolerances, tolerance, error);
  eosfm_status status = parse_tolerances("eosfm.graphs.tolerances", graph_tolerance, error);
  memcpy(tolerance, graph_tolerance, sizeof tolerance);
  if (status == EOSFM_OK && file.has(kKnownTolerances)) {
    status = parse_tolerances(kKnownTolerances, tolerance, error);
  }
  uint32_t count = 0;
  if (status == EOSFM_OK) status = file.read_count(kFiles, 1, kMostSpecialists + 1, &count, error);
  if (status != EOSFM_OK) return status;
  if (!graphs.allocate(file.allocator(), static_cast<int>(count))) return error.no_memory("the graphs");
  for (uint32_t i = 0; status == EOSFM_OK && i < count; ++i) {
    ChainGraph& one = graphs[static_cast<int>(i)];
    status = file.read_text_at(kFiles, i, one.file, sizeof one.file, error);
    if (status == EOSFM_OK) status = check_inside(one.file, file, error);
  }
  return status;
}

eosfm_status Chain::parse_modes(ErrorText& error) {
  static constexpr const char* kNormalisations[] = {"none", "batch", "layer", nullptr};
  static constexpr const char* kFusions[] = {"none", "conv1x1", "mlp", "addition", "multiplication", nullptr};
  int choice = 0;
  uint32_t value = 0;
  eosfm_status status = read_choice(file, "eosfm.normalisation", kNormalisations, &choice, error);
  if (status != EOSFM_OK) return status;
  normalisation = static_cast<Normalisation>(choice);
  status = read_choice(file, "eosfm.fusion", kFusions, &choice, error);
  if (status != EOSFM_OK) return status;
  fusion = static_cast<Fusion>(choice);
  status = file.read_uint("eosfm.projection", 0, 1, &value, error);
  if (status != EOSFM_OK) return status;
  projection = value == 1;
  uint32_t count = 0;
  status = file.read_count("eosfm.levels.channels", kLevels, kLevels, &count, error);
  for (uint32_t level = 0; status == EOSFM_OK && level < kLevels; ++level) {
    status = file.read_uint_at("eosfm.levels.channels", level, 1, kMostChannels, &value, error);
    level_channels[level] = static_cast<int>(value);
  }
  return status;
}

eosfm_status Chain::parse_runs(ErrorText& error) {
  uint32_t count = 0;
  uint32_t total = 0;
  eosfm_status status = file.read_count("eosfm.runs.specialists", 1, kMostRuns, &count, error);
  if (status == EOSFM_OK) {
    status = file.read_count("eosfm.runs.bands", 1, kMostRuns * kMostBands, &total, error);
  }
  if (status != EOSFM_OK) return status;
  if (!runs.allocate(file.allocator(), static_cast<int>(count)) ||
      !run_bands.allocate(file.allocator(), static_cast<int>(total))) {
    return error.no_memory("the runs");
  }
  uint32_t value = 0;
  for (uint32_t i = 0; i < total; ++i) {
    status =
        file.read_uint_at("eosfm.runs.bands", i, 0, static_cast<uint32_t>(bands.size() - 1), &value, error);
    if (status != EOSFM_OK) return status;
    run_bands[static_cast<int>(i)] = static_cast<int>(value);
  }
  int next = 0;
  for (uint32_t i = 0; i < count; ++i) {
    Run& run = runs[static_cast<int>(i)];
    status = file.read_uint_at("eosfm.runs.specialists", i, 0, static_cast<uint32_t>(specialists.size() - 1),
                               &value, error);
    run.specialist = static_cast<int>(value);
    if (status == EOSFM_OK) {
      status = file.read_uint_at("eosfm.runs.lengths", i, 1, total, &value, error);
    }
    if (status != EOSFM_OK) return status;
    run.first_band = next;
    run.bands = static_cast<int>(value);
    if (run.bands > run_bands.size() - next) {
      return error.fail(EOSFM_BAD_BUNDLE,
                        "the runs of %s take more than the %d bands in "
                        "eosfm.runs.bands",
                        file.file_name(), run_bands.size());
    }
    next += run.bands;
    for (uint32_t level = 0; fusion == Fusion::none && level < kLevels; ++level) {
      status = file.read_uint_at("eosfm.runs.channels", i * kLevels + level, 0,
                                 static_cast<uint32_t>(level_channels[level] - 1), &value, error);
      if (status != EOSFM_OK) return status;
      run.out_channel[level] = static_cast<int>(value);
    }
  }
  return EOSFM_OK;
}

eosfm_status Chain::check(const int (*widths)[kLevels], ErrorText& error) {
  char text[64];
  if (!file.has(kKnownTolerances)) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s has no %s, expected them where the specialists' files are",
                      file.file_name(), kKnownTolerances);
  }
  for (int s = 0; s < specialists.size(); ++s) {
    for (int level = 0; level < kLevels; ++level) {
      set_channels_[s][level] = widths[s][level];
      if (!projection) continue;
      snprintf(text, sizeof text, "projection.%d.%d.bias", s, level);
      const Tensor* bias = file.find_tensor(text);
      if (bias == nullptr || bias->dimensions != 1 || bias->shape[0] > kMostChannels) {
        return error.fail(EOSFM_BAD_BUNDLE, "%s has no vector %s", file.file_name(), text);
      }
      set_channels_[s][level] = static_cast<int>(bias->shape[0]);
    }
  }
  for (int level = 0; level < kLevels; ++level) {
    const eosfm_status status = check_fusion(level, error);
    if (status != EOSFM_OK) return status;
  }
  return EOSFM_OK;
}

eosfm_status Chain::check_known_answer(ErrorText& error) {
  char text[64];
  const int64_t image[] = {bands.size(), tile, tile};
  Tensor tensor;
  eosfm_status status = file.read_tensor("known.image", "f", 3, image, &tensor, error);
  for (int level = 0; status == EOSFM_OK && level < kLevels; ++level) {
    snprintf(text, sizeof text, "known.level%d", level + 1);
    const int64_t shape[] = {level_channels[level], tile >> (level + 2), tile >> (level + 2)};
    status = file.read_tensor(text, "f", 3, shape, &tensor, error);
  }
  return status;
}

// Checks that the sets fit a fusion that has no tensors. Matrices are checked when they are packed.
eosfm_status Chain::check_fusion(int level, ErrorText& error) {
  for (const Run& run : runs) {
    const int channels = set_channels_[run.specialist][level];
    const bool fits = fusion == Fusion::none ? channels <= level_channels[level] - run.out_channel[level]
                      : fusion == Fusion::addition || fusion == Fusion::multiplication
                          ? channels == level_channels[level]
                          : true;
    if (!fits) {
      return error.fail(EOSFM_BAD_BUNDLE,
                        "level %d of %s has %d channels, into which a feature set "
                        "of %d channels does not fit",
                        level + 1, file.file_name(), level_channels[level], channels);
    }
  }
  return EOSFM_OK;
}

const Tensor* Chain::known_level(int level) const {
  char text[32];
  snprintf(text, sizeof text, "known.level%d", level + 1);
  return file.find_tensor(text);
}

eosfm_status ChainWeights::shape(const Chain& chain, const int (*widths)[kLevels], const Kernels& kernels,
                                 bool widest_bf16, size_t* bytes, ErrorText& error) {
  for (auto& level : sets) {
    if (!level.allocate(chain.file.allocator(), chain.runs.size())) return error.no_memory("the chain");
  }
  Packer packer(chain.file, kernels, widest_bf16, error);
  Layout layout;
  const eosfm_status status = lay_out(chain, widths, kernels, packer, layout, error);
  *bytes += layout.size() + kLevels * bytes_of<SetWeights>(chain.runs.size());
  return status;
}

eosfm_status ChainWeights::pack(const Chain& chain, const int (*widths)[kLevels], const Kernels& kernels,
                                bool widest_bf16, ErrorText& error) {
  size_t size = 0;
  const eosfm_status status = shape(chain, widths, kernels, widest_bf16, &size, error);
  if (status != EOSFM_OK) return status;
  size -= kLevels * bytes_of<SetWeights>(chain.runs.size());  // the lists are allocated already
  if (!memory.allocate(chain.file.allocator(), size)) return error.no_memory("the chain");
  Packer packer(chain.file, kernels, widest_bf16, error);
  Layout layout(memory.data());
  return lay_out(chain, widths, kernels, packer, layout, error);
}

eosfm_status ChainWeights::lay_out(const Chain& chain, const int (*widths)[kLevels], const Kernels& kernels,
                                   Packer& packer, Layout& layout, ErrorText& error) {
  for (int level = 0; level < kLevels; ++level) {
    int column = 0;
    for (int r = 0; r < chain.runs.size(); ++r) {
      SetWeights& set = sets[level][r];
      const int s = chain.runs[r].specialist;
      // Runs of one specialist share its weights.
      int first_run = 0;
      while (chain.runs[first_run].specialist != s) ++first_run;
      if (first_run < r) {
        set = sets[level][first_run];
      } else {
        set.channels = chain.set_channels(s, level);
        set.padded = padded_to(set.channels, kernels.lanes);
        const eosfm_status status =
            lay_out_set(chain, s, level, widths[s][level], kernels, packer, layout, &set, error);
        if (status != EOSFM_OK) return status;
      }
      set.column = column;
      column += set.padded;
    }
    columns[level] = column;
    if (chain.fusion == Fusion::conv1x1 || chain.fusion == Fusion::mlp) {
      const eosfm_status status = lay_out_fusion(chain, level, packer, layout, error);
      if (status != EOSFM_OK) return status;
    }
  }
  return EOSFM_OK;
}

eosfm_status ChainWeights::lay_out_set(const Chain& chain, int s, int level, int width,
                                       const Kernels& kernels, Packer& packer, Layout& layout,
                                       SetWeights* set, ErrorText& error) {
  constexpr float kEpsilon = 1e-5F;  // of PyTorch's BatchNorm2d
  char name[64];
  const int padded = padded_to(width, kernels.lanes);
  float* scale = layout.take<float>(static_cast<size_t>(padded));
  float* shift = layout.take<float>(static_cast<size_t>(padded));
  set->scale = scale;
  set->shift = shift;
  Tensor mean;
  Tensor variance;
  const bool batch = chain.normalisation == Normalisation::batch;
  if (batch) {
    snprintf(name, sizeof name, "normalisation.%d.%d.mean", s, level);
    eosfm_status status = packer.read_vector(name, width, &mean);
    if (status != EOSFM_OK) return status;
    snprintf(name, sizeof name, "normalisation.%d.%d.variance", s, level);
    status = packer.read_vector(name, width, &variance);
    if (status != EOSFM_OK) return status;
  }
  const float factor = chain.specialists[s].factor;
  const float after = chain.projection ? 1.0F : factor;  // or the projection stands between
  for (int c = 0; c < width; ++c) {
    const float v = batch ? float_at(variance, c) : 0.0F;
    if (v < 0.0F) {
      return error.fail(EOSFM_BAD_BUNDLE, "%s of %s has a variance below 0", name, chain.file.file_name());
    }
    if (scale == nullptr) continue;  // only the size is wanted
    scale[c] = batch ? after / sqrtf(v + kEpsilon) : after;
    shift[c] = batch ? -float_at(mean, c) * scale[c] : 0.0F;
  }
  if (!chain.projection) return EOSFM_OK;

  snprintf(name, sizeof name, "projection.%d.%d", s, level);
  MatrixSource source;
  const eosfm_status status = packer.read_matrix(name, "f", width, set->channels, &source);
  if (status != EOSFM_OK) return status;
  float* factors = layout.take<float>(static_cast<size_t>(set->padded));
  for (int c = 0; factors != nullptr && c < set->channels; ++c) factors[c] = factor;
  set->factor = factors;
  const RowGroup group = {width, padded};
  return packer.pack(source, &group, 1, Storage::f32, layout, &set->projection);
}

eosfm_status ChainWeights::lay_out_fusion(const Chain& chain, int level, Packer& packer, Layout& layout,
                                          ErrorText& error) {
  const int runs = chain.runs.size();
  Array<RowGroup> groups;
  if (!groups.allocate(chain.file.allocator(), runs)) return error.no_memory("the chain");
  int rows = 0;
  for (int r = 0; r < runs; ++r) {
    groups[r] = {sets[level][r].channels, sets[level][r].padded};
    rows += groups[r].rows;
  }
  const bool mlp = chain.fusion == Fusion::mlp;
  char name[64];
  int hidden = chain.level_channels[level];
  if (mlp) {
    snprintf(name, sizeof name, "fusion.%d.0.bias", level);
    const Tensor* bias = chain.file.find_tensor(name);
    if (bias == nullptr || bias->dimensions != 1 || bias->shape[0] > 2 * kMostChannels) {
      return error.fail(EOSFM_BAD_BUNDLE, "%s has no vector %s", chain.file.file_name(), name);
    }
    hidden = static_cast<int>(bias->shape[0]);
  }
  snprintf(name, sizeof name, mlp ? "fusion.%d.0" : "fusion.%d", level);
  MatrixSource source;
  eosfm_status status = packer.read_matrix(name, "fb", rows, hidden, &source);
  if (status != EOSFM_OK) return status;
  const Storage stored = packer.storage_of(source.weight.type);
  if (level > 0 && stored != storage) {
    return error.fail(EOSFM_BAD_BUNDLE, "the fusions of %s are of different types", chain.file.file_name());
  }
  storage = stored;
  status = packer.pack(source, groups.begin(), runs, storage, layout, &first[level]);
  if (status != EOSFM_OK || !mlp) return status;
  snprintf(name, sizeof name, "fusion.%d.2", level);
  status = packer.read_matrix(name, "fb", hidden, chain.level_channels[level], &source);
  if (status != EOSFM_OK) return status;
  const RowGroup group = {hidden, hidden};
  return packer.pack(source, &group, 1, storage, layout, &second[level]);
}

}  // namespace eosfm
