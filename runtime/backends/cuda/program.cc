#include "program.h"

#include <string.h>

namespace eosfm {

const char* const kGpuKernelNames[kGpuKernels] = {"eosfm_stem",       "eosfm_downsample", "eosfm_block_front",
                                                  "eosfm_block_back", "eosfm_moments",    "eosfm_mix",
                                                  "eosfm_combine"};

namespace {

// Most partial sums of squares of an image: every thread block of the second half adds all of them up.
constexpr int kMostSpans = 32;

// Thread blocks that fill a multiprocessor; columns are split to have as many on all of them. More would
// normalise the same pixels again for nothing.
constexpr int kThreadBlocksOfOne = 2;

// Shared memory that leaves room for other thread blocks, and what every GPU since sm_80 has.
constexpr size_t kAmpleShared = 56 << 10;
constexpr size_t kMostShared = 99 << 10;

constexpr int kLevelRows = 32;

int smaller(int a, int b) { return a < b ? a : b; }
int larger(int a, int b) { return a > b ? a : b; }
int divided(int a, int b) { return (a + b - 1) / b; }

// Returns the bytes of a row of an operand in shared memory, as matmul.h's row_stride.
size_t row_bytes_of(int words) { return (round_up(static_cast<size_t>(words), 8) + 4) * sizeof(float); }

// Returns the rows of a group of pixels whose operands fit into shared memory.
int rows_for(int words) {
  const size_t row = row_bytes_of(words);
  return 32 * row <= kAmpleShared ? 32 : 16 * row <= kMostShared ? 16 : 8;
}

// Returns the tiles of columns whose sums the warps of a thread block hold at once, as matmul.h's Seat.
int most_tiles(int rows) { return gpu::kWarpTiles * gpu::kWarps / (rows > 16 ? 2 : 1); }

// Splits tiles of columns over thread blocks: no more for each than fit, and enough blocks to fill a GPU.
void split_columns(int tiles, int most, int enough, int others, int* columns, int* splits) {
  const int wanted = smaller(tiles, divided(enough, others));
  *columns = smaller(most, divided(tiles, wanted));
  *splits = divided(tiles, *columns);
}

gpu::Cover cover_of(int side, int rows, int tiles, int most, int enough, int others) {
  gpu::Cover cover;
  cover.width = side;
  cover.height = side;
  cover.rows = rows;
  const int groups = divided(side, gpu::kGroupWidth) * divided(side, rows / gpu::kGroupWidth);
  cover.span = divided(groups, kMostSpans);
  cover.spans = divided(groups, cover.span);
  split_columns(tiles, most, enough, cover.spans * others, &cover.columns, &cover.splits);
  return cover;
}

unsigned thread_blocks_of(const gpu::Cover& cover) {
  return static_cast<unsigned>(cover.spans * cover.splits);
}

// Holds the addresses of a block's weights on the device.
struct DeviceBlock {
  const float* depthwise;
  const float* depthwise_bias;
  const float* grn;
  gpu::Weights fc1;
  gpu::Weights fc2;
  int hidden;
  int hidden_kind;
};

struct DeviceNetwork {
  const float* stem;
  const float* stem_bias;
  const float* stem_gamma;
  const float* stem_beta;
  gpu::Weights entries[kStages];  // from the second on
  Array<DeviceBlock> blocks[kStages];
};

// Holds the addresses of a run's working memory.
struct RunMemory {
  float* pixels[kStages];  // [batch][pixel][channels]
  void* hidden;
  size_t hidden_bytes;  // of an image
  float* squares;
  size_t squares_count;  // of an image
};

}  // namespace

// Walks over the model and takes memory for each part, in the same order each time.
class GpuProgram::Builder {
 public:
  Builder(GpuProgram& program, const eosfm_model& model, char* device, char* outside, char* staging,
          ErrorText& error)
      : program_(program),
        model_(model),
        chain_(model.chain),
        constants_(device),
        working_(device != nullptr ? device + program.constant_bytes_ : nullptr),
        outside_(outside),
        staging_(staging),
        error_(error) {}

  eosfm_status build() {
    const int runs = chain_.runs.size();
    if (!networks_.allocate(*program_.allocator_, model_.specialists.size()) ||
        !memory_.allocate(*program_.allocator_, runs)) {
      return error_.no_memory("the program of the GPU");
    }
    program_.launch_count_ = 0;
    eosfm_status status = EOSFM_OK;
    for (int s = 0; status == EOSFM_OK && s < model_.specialists.size(); ++s) status = put_network(s);
    if (status == EOSFM_OK) status = put_chain();
    if (status != EOSFM_OK) return status;
    take_working();
    add_stem();
    for (int stage = 0; stage < kStages; ++stage) {
      if (stage > 0) add_downsample(stage);
      add_blocks(stage);
    }
    add_levels();
    program_.constant_bytes_ = round_up(constants_.size(), 256);
    program_.working_bytes_ = working_.size();
    program_.outside_bytes_ = outside_.size();
    return status_;
  }

 private:
  // Takes memory for constants; `staged` is where they are written, null for the size alone.
  template <class T>
  T* take(size_t count, T** staged) {
    const size_t at = constants_.size();
    T* device = constants_.take<T>(count);
    *staged = staging_ != nullptr ? reinterpret_cast<T*>(staging_ + at) : nullptr;
    return device;
  }

  template <class T>
  const T* put(const T* from, size_t count) {
    T* staged = nullptr;
    T* device = take<T>(count, &staged);
    if (staged != nullptr) memcpy(staged, from, count * sizeof(T));
    return device;
  }

  eosfm_status put_weights(const Matrix& matrix, const KGroups& groups, const char* name,
                           gpu::Weights* weights) {
    const gpu::Kind kind = kind_of(matrix, program_.all_float_);
    const size_t columns = static_cast<size_t>(matrix.vectors) * 8;
    size_t rows = 0;
    for (int g = 0; g < groups.count; ++g) rows += static_cast<size_t>(groups.sizes[g]);
    uint32_t* panels = nullptr;
    weights->panels = take<uint32_t>(panel_words(matrix, kind, groups), &panels);
    weights->bias = put(matrix.bias, columns);
    if (kind == gpu::kByte) {
      weights->scale = put(matrix.scale, columns);
      weights->inverse = put(matrix.inverse, rows);
      weights->zero = matrix.zero;
    }
    weights->kind = kind;
    weights->words = words_of(kind, groups);
    weights->tiles = tiles_of(matrix);
    if (panels == nullptr || to_panels(matrix, kind, groups, panels)) return EOSFM_OK;
    return error_.fail(EOSFM_UNSUPPORTED,
                       "a weight of %s is beyond the range of half precision; fix: "
                       "name the backend cuda-fp32",
                       name);
  }

  // Copies weights to the device; only one specialist's are in the host's memory at a time.
  eosfm_status put_network(int s) {
    const Specialist& specialist = model_.specialists[s];
    DeviceNetwork& to = networks_[s];
    NetworkWeights from;
    size_t bytes = 0;
    eosfm_status status = staging_ != nullptr ? specialist.pack(kGpuPacking, false, &from, error_)
                                              : specialist.shape(kGpuPacking, false, &from, &bytes, error_);
    if (status != EOSFM_OK) return status;
    const size_t width = static_cast<size_t>(specialist.widths[0]);
    to.stem = reinterpret_cast<const float*>(put(from.stages[0].entry.words, 16 * width * specialist.bands));
    to.stem_bias = put(from.stages[0].entry.bias, width);
    to.stem_gamma = put(from.stem_gamma, width);
    to.stem_beta = put(from.stem_beta, width);
    for (int stage = 0; status == EOSFM_OK && stage < kStages; ++stage) {
      const StageWeights& one = from.stages[stage];
      if (stage > 0) {
        const int before = from.stages[stage - 1].width;
        const int corners[4] = {before, before, before, before};
        status = put_weights(one.entry, {corners, 4}, chain_.specialists[s].file, &to.entries[stage]);
      }
      if (!to.blocks[stage].allocate(*program_.allocator_, one.blocks.size()))
        return error_.no_memory("the program of the GPU");
      for (int b = 0; status == EOSFM_OK && b < one.blocks.size(); ++b) {
        status = put_block(one.blocks[b], one.width, chain_.specialists[s].file, &to.blocks[stage][b]);
      }
    }
    return status;
  }

  eosfm_status put_block(const BlockWeights& from, int width, const char* name, DeviceBlock* to) {
    const size_t channels = static_cast<size_t>(width);
    to->hidden = from.hidden;
    to->depthwise = put(from.depthwise, 49 * channels);
    to->depthwise_bias = put(from.depthwise_bias, channels);
    to->grn = put(from.grn, static_cast<size_t>(from.hidden));
    eosfm_status status = put_weights(from.fc1, {&width, 1}, name, &to->fc1);
    if (status == EOSFM_OK) status = put_weights(from.fc2, {&from.hidden, 1}, name, &to->fc2);
    to->hidden_kind = to->fc2.kind == gpu::kFloat  ? gpu::kHiddenFloat
                      : to->fc2.kind == gpu::kHalf ? gpu::kHiddenHalf
                                                   : gpu::kHiddenBf16;
    return status;
  }

  // Copies scales, projections and fusions to the device.
  eosfm_status put_chain() {
    int widths[kMostSpecialists][kLevels];
    for (int s = 0; s < model_.specialists.size(); ++s) {
      memcpy(widths[s], model_.specialists[s].widths, sizeof widths[s]);
    }
    ChainWeights weights;
    size_t bytes = 0;
    eosfm_status status = staging_ != nullptr
                              ? weights.pack(chain_, widths, kGpuPacking, false, error_)
                              : weights.shape(chain_, widths, kGpuPacking, false, &bytes, error_);
    const int runs = chain_.runs.size();
    Array<int> padded;
    if (!padded.allocate(*program_.allocator_, runs)) return error_.no_memory("the program of the GPU");
    for (int level = 0; status == EOSFM_OK && level < kLevels; ++level) {
      if (!scales_[level].allocate(*program_.allocator_, runs) ||
          !shifts_[level].allocate(*program_.allocator_, runs) ||
          !projections_[level].allocate(*program_.allocator_, runs)) {
        return error_.no_memory("the program of the GPU");
      }
      for (int r = 0; status == EOSFM_OK && r < runs; ++r) {
        const SetWeights& set = weights.sets[level][r];
        const int width = widths[chain_.runs[r].specialist][level];
        scales_[level][r] = put(set.scale, static_cast<size_t>(width));
        shifts_[level][r] = put(set.shift, static_cast<size_t>(width));
        padded[r] = set.padded;
        if (chain_.projection) {
          status = put_weights(set.projection, {&width, 1}, "chain.gguf", &projections_[level][r]);
        }
      }
      if (status != EOSFM_OK || !is_mixed()) continue;
      status = put_weights(weights.first[level], {padded.begin(), runs}, "chain.gguf", &first_[level]);
      first_columns_[level] = weights.first[level].columns;
      if (status != EOSFM_OK || chain_.fusion != Fusion::mlp) continue;
      status = put_weights(weights.second[level], {&first_columns_[level], 1}, "chain.gguf", &second_[level]);
    }
    return status;
  }

  bool is_mixed() const { return chain_.fusion == Fusion::conv1x1 || chain_.fusion == Fusion::mlp; }
  const Specialist& specialist_of(int run) const { return model_.specialists[chain_.runs[run].specialist]; }
  const DeviceNetwork& network_of(int run) const { return networks_[chain_.runs[run].specialist]; }
  int side(int stage) const { return chain_.tile >> (stage + 2); }
  size_t cells(int stage) const { return static_cast<size_t>(side(stage)) * side(stage); }
  size_t images() const { return static_cast<size_t>(program_.batch_) * program_.slots_; }
  // Thread blocks of a launch for each of one descriptor.
  int enough() const { return kThreadBlocksOfOne * program_.multiprocessors_; }
  int others() const { return chain_.runs.size() * program_.batch_; }

  gpu::Cover front_of(const DeviceBlock& block, int width, int stage) const {
    return cover_of(side(stage), rows_for(larger(width, block.fc1.words)), block.fc1.tiles, block.fc1.tiles,
                    enough(), others());
  }
  static int partials_of(const gpu::Cover& front) { return front.spans * (front.rows > 16 ? 2 : 1); }

  void take_working() {
    const size_t tile = static_cast<size_t>(chain_.tile);
    const size_t image_floats = chain_.bands.size() * tile * tile;
    program_.image_bytes_ = image_floats * sizeof(float);
    program_.image_offset_ = outside_.size();
    image_ = outside_.take<float>(images() * image_floats);
    for (int level = 0; level < kLevels; ++level) {
      const size_t count = static_cast<size_t>(chain_.level_channels[level]) * cells(level);
      program_.level_bytes_[level] = count * sizeof(float);
      program_.level_offsets_[level] = outside_.size();
      levels_[level] = outside_.take<float>(images() * count);
    }
    for (int r = 0; r < chain_.runs.size(); ++r) {
      RunMemory& memory = memory_[r];
      for (int stage = 0; stage < kStages; ++stage) {
        const int width = specialist_of(r).widths[stage];
        memory.pixels[stage] = working_.take<float>(images() * cells(stage) * width);
        for (const DeviceBlock& block : network_of(r).blocks[stage]) {
          const size_t element = block.hidden_kind == gpu::kHiddenFloat ? 4 : 2;
          const size_t hidden = cells(stage) * static_cast<size_t>(block.hidden) * element;
          const size_t squares = static_cast<size_t>(partials_of(front_of(block, width, stage))) *
                                 static_cast<size_t>(block.hidden);
          if (hidden > memory.hidden_bytes) memory.hidden_bytes = round_up(hidden, 16);
          if (squares > memory.squares_count) memory.squares_count = squares;
        }
      }
      memory.hidden = working_.take<char>(images() * memory.hidden_bytes);
      memory.squares = working_.take<float>(images() * memory.squares_count);
    }
  }

  // Adds a launch over descriptors that `put` has taken.
  void add(GpuKernel kernel, const void* descriptors, int count, unsigned thread_blocks,
           size_t shared_bytes) {
    const int i = program_.launch_count_++;
    if (program_.launches_.size() == 0) return;  // only their number is wanted
    program_.launches_[i] = {kernel, descriptors, thread_blocks, static_cast<unsigned>(count), shared_bytes};
  }

  // Makes a descriptor for each of `count`: fill(i, descriptor) returns whether there is one, and raises
  // what it needs.
  template <class Descriptor, class Fill>
  const Descriptor* descriptors(int count, int* filled, const Fill& fill) {
    *filled = 0;
    Descriptor* staged = nullptr;
    Descriptor* device = take<Descriptor>(static_cast<size_t>(count), &staged);
    for (int i = 0; i < count; ++i) {
      Descriptor one;
      if (!fill(i, &one)) continue;
      if (staged != nullptr) staged[*filled] = one;
      ++*filled;
    }
    return device;
  }

  struct Needs {
    unsigned thread_blocks = 0;
    size_t shared = 0;

    void include(unsigned blocks, size_t bytes) {
      if (blocks > thread_blocks) thread_blocks = blocks;
      if (bytes > shared) shared = bytes;
    }
  };

  void add_stem() {
    Needs needs;
    int count = 0;
    const size_t plane = static_cast<size_t>(chain_.tile) * chain_.tile;
    // Bands first: descriptors point to them.
    Array<const int*> bands;
    Array<const float*> scales;
    Array<const float*> offsets;
    const int runs = chain_.runs.size();
    if (!bands.allocate(*program_.allocator_, runs) || !scales.allocate(*program_.allocator_, runs) ||
        !offsets.allocate(*program_.allocator_, runs)) {
      status_ = error_.no_memory("the program of the GPU");
      return;
    }
    for (int r = 0; r < runs; ++r) {
      const Run& run = chain_.runs[r];
      float* scale = nullptr;
      float* offset = nullptr;
      bands[r] = put(&chain_.run_bands[run.first_band], static_cast<size_t>(run.bands));
      scales[r] = take<float>(static_cast<size_t>(run.bands), &scale);
      offsets[r] = take<float>(static_cast<size_t>(run.bands), &offset);
      for (int b = 0; scale != nullptr && b < run.bands; ++b) {
        const Band& band = chain_.bands[chain_.run_bands[run.first_band + b]];
        scale[b] = band.scale;
        offset[b] = band.offset;
      }
    }
    const auto* all = descriptors<gpu::Stem>(runs, &count, [&](int r, gpu::Stem* d) {
      const DeviceNetwork& network = network_of(r);
      const int width = specialist_of(r).widths[0];
      d->cover = cover_of(side(0), 32, 1, 1, enough(), others());
      d->image = image_;
      d->image_stride = plane * chain_.bands.size();
      d->bands = bands[r];
      d->scales = scales[r];
      d->offsets = offsets[r];
      d->band_count = chain_.runs[r].bands;
      d->weights = network.stem;
      d->bias = network.stem_bias;
      d->gamma = network.stem_gamma;
      d->beta = network.stem_beta;
      d->channels = width;
      d->out = memory_[r].pixels[0];
      d->out_stride = cells(0) * width;
      needs.include(thread_blocks_of(d->cover), 8 * 16 * 32 * sizeof(float) + 32 * row_bytes_of(width));
      return true;
    });
    add(GpuKernel::stem, all, count, needs.thread_blocks, needs.shared);
  }

  void add_downsample(int stage) {
    Needs needs;
    int count = 0;
    const auto* all =
        descriptors<gpu::Downsample>(chain_.runs.size(), &count, [&](int r, gpu::Downsample* d) {
      d->weights = network_of(r).entries[stage];
      const int words = d->weights.words / 4;
      const int rows = rows_for(words);
      d->cover = cover_of(side(stage), rows, d->weights.tiles, most_tiles(rows), enough(), others());
      d->in = memory_[r].pixels[stage - 1];
      d->in_channels = specialist_of(r).widths[stage - 1];
      d->in_stride = cells(stage - 1) * d->in_channels;
      d->out = memory_[r].pixels[stage];
      d->channels = specialist_of(r).widths[stage];
      d->out_stride = cells(stage) * d->channels;
      needs.include(thread_blocks_of(d->cover), static_cast<size_t>(rows) * row_bytes_of(words));
      return true;
    });
    add(GpuKernel::downsample, all, count, needs.thread_blocks, needs.shared);
  }

  void add_blocks(int stage) {
    int deepest = 0;
    for (int r = 0; r < chain_.runs.size(); ++r) deepest = larger(deepest, specialist_of(r).depths[stage]);
    for (int b = 0; b < deepest; ++b) {
      Needs front;
      Needs back;
      int count = 0;
      const auto* all = descriptors<gpu::Block>(chain_.runs.size(), &count, [&](int r, gpu::Block* d) {
        if (b >= specialist_of(r).depths[stage]) return false;
        const DeviceBlock& block = network_of(r).blocks[stage][b];
        const RunMemory& memory = memory_[r];
        d->channels = specialist_of(r).widths[stage];
        d->hidden_channels = block.hidden;
        d->front = front_of(block, d->channels, stage);
        d->back = cover_of(side(stage), 32, block.fc2.tiles, most_tiles(32), enough(), others());
        d->depthwise = block.depthwise;
        d->depthwise_bias = block.depthwise_bias;
        d->fc1 = block.fc1;
        d->grn = block.grn;
        d->fc2 = block.fc2;
        d->pixels = memory.pixels[stage];
        d->pixels_stride = cells(stage) * d->channels;
        d->hidden = memory.hidden;
        d->hidden_stride = memory.hidden_bytes;
        d->hidden_kind = block.hidden_kind;
        d->squares = memory.squares;
        d->partials = partials_of(d->front);
        d->squares_stride = memory.squares_count;
        front.include(thread_blocks_of(d->front),
                      static_cast<size_t>(d->front.rows) * row_bytes_of(larger(d->channels, d->fc1.words)));
        back.include(thread_blocks_of(d->back),
                     32 * row_bytes_of(gpu::kPanelWords) +
                         (gpu::kWarps + static_cast<size_t>(block.hidden)) * sizeof(float));
        return true;
      });
      add(GpuKernel::block_front, all, count, front.thread_blocks, front.shared);
      add(GpuKernel::block_back, all, count, back.thread_blocks, back.shared);
    }
  }

  void add_levels() {
    const int runs = chain_.runs.size();
    gpu::Set* staged[kLevels];
    const gpu::Set* sets[kLevels];
    Array<gpu::Set> inputs[kLevels];
    for (int level = 0; level < kLevels; ++level) {
      if (!inputs[level].allocate(*program_.allocator_, runs)) {
        status_ = error_.no_memory("the program of the GPU");
        return;
      }
      for (int r = 0; r < runs; ++r) {
        gpu::Set& set = inputs[level][r];
        set.from = memory_[r].pixels[level];
        set.channels = specialist_of(r).widths[level];
        set.from_stride = cells(level) * set.channels;
        set.scale = scales_[level][r];
        set.shift = shifts_[level][r];
        if (chain_.normalisation == Normalisation::layer) set.moments = working_.take<float>(2 * images());
      }
    }
    if (chain_.normalisation == Normalisation::layer) add_moments(inputs);
    if (chain_.projection) add_projections(inputs);
    for (int level = 0; level < kLevels; ++level) {
      sets[level] = take<gpu::Set>(static_cast<size_t>(runs), &staged[level]);
      for (int r = 0; r < runs; ++r) {
        if (chain_.fusion == Fusion::none) {
          inputs[level][r].out_channel = chain_.runs[r].out_channel[level];
        }
        if (staged[level] != nullptr) staged[level][r] = inputs[level][r];
      }
    }
    if (is_mixed()) {
      add_fusion(sets);
    } else {
      add_combination(sets, inputs);
    }
  }

  void add_moments(const Array<gpu::Set> (&inputs)[kLevels]) {
    int count = 0;
    const int runs = chain_.runs.size();
    const auto* all = descriptors<gpu::Moments>(kLevels * runs, &count, [&](int i, gpu::Moments* d) {
      d->set = inputs[i / runs][i % runs];
      d->pixels = static_cast<int>(cells(i / runs));
      return true;
    });
    add(GpuKernel::moments, all, count, 1, gpu::kWarps * sizeof(float));
  }

  void set_grid(gpu::Mix* d, Needs* needs) const {
    const int groups = divided(d->pixels, kLevelRows);
    split_columns(d->weights.tiles, most_tiles(kLevelRows), enough(), groups * kLevels * program_.batch_,
                  &d->columns, &d->splits);
    needs->include(static_cast<unsigned>(groups * d->splits), kLevelRows * row_bytes_of(gpu::kPanelWords));
  }

  // Projects the sets: rows of the projections' channels, times the selection's factor.
  void add_projections(Array<gpu::Set> (&inputs)[kLevels]) {
    Needs needs;
    int count = 0;
    const int runs = chain_.runs.size();
    gpu::Set* staged = nullptr;
    const gpu::Set* before = take<gpu::Set>(static_cast<size_t>(kLevels * runs), &staged);
    const auto* all = descriptors<gpu::Mix>(kLevels * runs, &count, [&](int i, gpu::Mix* d) {
      const int level = i / runs;
      const int r = i % runs;
      gpu::Set& set = inputs[level][r];
      if (staged != nullptr) staged[i] = set;
      const int s = chain_.runs[r].specialist;
      d->sets = before + i;
      d->set_count = 1;
      d->pixels = static_cast<int>(cells(level));
      d->weights = projections_[level][r];
      d->channels = chain_.set_channels(s, level);
      d->activation = gpu::kLeakyRelu;
      d->factor = chain_.specialists[s].factor;
      d->out_stride = cells(level) * d->channels;
      d->out = working_.take<float>(images() * d->out_stride);
      set_grid(d, &needs);
      set = gpu::Set();
      set.from = d->out;
      set.from_stride = d->out_stride;
      set.channels = d->channels;
      return true;
    });
    add(GpuKernel::mix, all, count, needs.thread_blocks, needs.shared);
  }

  void add_fusion(const gpu::Set* const (&sets)[kLevels]) {
    const bool mlp = chain_.fusion == Fusion::mlp;
    const gpu::Set* middle = nullptr;
    gpu::Set* staged = nullptr;
    if (mlp) middle = take<gpu::Set>(kLevels, &staged);
    for (int layer = 0; layer < (mlp ? 2 : 1); ++layer) {
      Needs needs;
      int count = 0;
      const bool is_last = !mlp || layer == 1;
      const auto* all = descriptors<gpu::Mix>(kLevels, &count, [&](int level, gpu::Mix* d) {
        d->sets = layer == 0 ? sets[level] : middle + level;
        d->set_count = layer == 0 ? chain_.runs.size() : 1;
        d->pixels = static_cast<int>(cells(level));
        d->weights = layer == 0 ? first_[level] : second_[level];
        d->channels = is_last ? chain_.level_channels[level] : first_columns_[level];
        d->activation = is_last ? gpu::kPlain : gpu::kRelu;
        d->out_stride = cells(level) * static_cast<size_t>(d->channels);
        d->out = is_last ? levels_[level] : working_.take<float>(images() * d->out_stride);
        d->planes = is_last ? 1 : 0;
        set_grid(d, &needs);
        if (!is_last && staged != nullptr) {
          staged[level] = gpu::Set();
          staged[level].from = d->out;
          staged[level].from_stride = d->out_stride;
          staged[level].channels = d->channels;
        }
        return true;
      });
      add(GpuKernel::mix, all, count, needs.thread_blocks, needs.shared);
    }
  }

  void add_combination(const gpu::Set* const (&sets)[kLevels], const Array<gpu::Set> (&inputs)[kLevels]) {
    Needs needs;
    int count = 0;
    const auto* all = descriptors<gpu::Combination>(kLevels, &count, [&](int level, gpu::Combination* d) {
      d->sets = sets[level];
      d->set_count = chain_.runs.size();
      d->pixels = static_cast<int>(cells(level));
      d->how = chain_.fusion == Fusion::addition         ? gpu::kAdd
               : chain_.fusion == Fusion::multiplication ? gpu::kMultiply
                                                         : gpu::kConcatenate;
      d->out = levels_[level];
      d->out_stride = cells(level) * static_cast<size_t>(chain_.level_channels[level]);
      int widest = 0;
      for (const gpu::Set& set : inputs[level]) widest = larger(widest, set.channels);
      needs.include(static_cast<unsigned>(divided(d->pixels, kLevelRows) * divided(widest, 32)),
                    kLevelRows * (kLevelRows + 1) * sizeof(float));
      return true;
    });
    add(GpuKernel::combine, all, count, needs.thread_blocks, needs.shared);
  }

  GpuProgram& program_;
  const eosfm_model& model_;
  const Chain& chain_;
  Layout constants_;
  Layout working_;
  Layout outside_;
  char* staging_;
  ErrorText& error_;
  eosfm_status status_ = EOSFM_OK;
  const float* image_ = nullptr;   // [images][bands][tile][tile]
  float* levels_[kLevels] = {};    // [images][channels][cells]
  Array<DeviceNetwork> networks_;
  Array<RunMemory> memory_;
  Array<const float*> scales_[kLevels];
  Array<const float*> shifts_[kLevels];
  Array<gpu::Weights> projections_[kLevels];
  gpu::Weights first_[kLevels];
  gpu::Weights second_[kLevels];
  int first_columns_[kLevels] = {};
};

eosfm_status GpuProgram::shape(const eosfm_allocator& allocator, const eosfm_model& model, int batch,
                               int slots, bool all_float, ErrorText& error) {
  allocator_ = &allocator;
  batch_ = batch;
  slots_ = slots;
  all_float_ = all_float;
  return Builder(*this, model, nullptr, nullptr, nullptr, error).build();
}

eosfm_status GpuProgram::fill(const eosfm_model& model, char* device, char* outside, char* staging,
                              ErrorText& error) {
  if (!launches_.allocate(*allocator_, launch_count_)) return error.no_memory("the program of the GPU");
  return Builder(*this, model, device, outside, staging, error).build();
}

size_t GpuProgram::shared_bytes(GpuKernel kernel) const {
  size_t most = 0;
  for (const GpuLaunch& launch : launches_) {
    if (launch.kernel == kernel && launch.shared_bytes > most) most = launch.shared_bytes;
  }
  return most;
}

}  // namespace eosfm
