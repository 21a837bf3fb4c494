// What the tests share: a bundle's files in memory, an image for it, and levels to fill.
#ifndef EOSFM_TESTS_BUNDLE_H
#define EOSFM_TESTS_BUNDLE_H

#include <eosfm.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

struct BundleFiles {
  std::vector<std::string> paths;
  std::vector<std::vector<char>> contents;

  explicit BundleFiles(const std::string& directory) {
    add(directory, "chain.gguf");
    for (const char* folder : {"specialists", "heads"}) {
      if (!std::filesystem::exists(directory + "/" + folder)) continue;
      for (const auto& entry : std::filesystem::directory_iterator(directory + "/" + folder)) {
        if (entry.path().extension() == ".gguf")
          add(directory, std::string(folder) + "/" + entry.path().filename().string());
      }
    }
  }

  void add_graphs(const std::string& directory) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
      if (entry.path().extension() != ".onnx") continue;
      add(directory, std::filesystem::relative(entry.path(), directory).string());
    }
  }

  std::vector<eosfm_file> views() const {
    std::vector<eosfm_file> files;
    for (size_t i = 0; i < paths.size(); ++i) {
      files.push_back({sizeof(eosfm_file), paths[i].c_str(), contents[i].data(), contents[i].size()});
    }
    return files;
  }

 private:
  void add(const std::string& directory, const std::string& path) {
    std::ifstream in(directory + "/" + path, std::ios::binary);
    paths.push_back(path);
    contents.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
};

// Dense fp32 bands of stored values that change from pixel to pixel.
struct TestImage {
  int width;
  int height;
  std::vector<float> pixels;
  std::vector<eosfm_band> bands;

  TestImage(int count, int w, int h) : width(w), height(h) {
    const size_t plane = static_cast<size_t>(w) * h;
    pixels.resize(plane * count);
    for (size_t i = 0; i < pixels.size(); ++i) {
      pixels[i] = std::floor(100.0F + 60.0F * std::sin(0.013F * static_cast<float>(i % 7919)));
    }
    for (int b = 0; b < count; ++b) {
      eosfm_band band = EOSFM_BAND_INIT;
      band.data = pixels.data() + plane * b;
      band.column_stride = sizeof(float);
      band.row_stride = static_cast<ptrdiff_t>(sizeof(float)) * w;
      bands.push_back(band);
    }
  }

  eosfm_image view() const { return {sizeof(eosfm_image), bands.data(), bands.size(), nullptr, 0, 0}; }
};

// Buffers of the levels' sizes, with room around them that must stay as it is.
struct TestLevels {
  static constexpr float kUntouched = -12345.0F;
  static constexpr int kMargin = 3;
  std::vector<float> buffers[EOSFM_LEVELS];
  eosfm_level levels[EOSFM_LEVELS];
  int channels[EOSFM_LEVELS];
  int widths[EOSFM_LEVELS];
  int heights[EOSFM_LEVELS];

  TestLevels(const eosfm_model_info& info, int width, int height) {
    for (int l = 0; l < EOSFM_LEVELS; ++l) {
      channels[l] = info.channels[l];
      widths[l] = width >> (l + 2);
      heights[l] = height >> (l + 2);
      eosfm_level level = EOSFM_LEVEL_INIT;
      level.row_stride = widths[l] + kMargin;
      level.channel_stride = level.row_stride * (heights[l] + kMargin);
      buffers[l].assign(static_cast<size_t>(level.channel_stride) * channels[l] + kMargin, kUntouched);
      level.data = buffers[l].data() + kMargin;
      levels[l] = level;
    }
  }

  float at(int level, int channel, int y, int x) const {
    const eosfm_level& l = levels[level];
    return l.data[channel * l.channel_stride + y * l.row_stride + x];
  }

  // How many floats outside the cells have changed, or inside have not.
  size_t wrong(bool written) const {
    size_t count = 0;
    for (int l = 0; l < EOSFM_LEVELS; ++l) {
      for (size_t i = 0; i < buffers[l].size(); ++i) {
        const ptrdiff_t at = static_cast<ptrdiff_t>(i) - kMargin;
        const bool cell = at >= 0 && at % levels[l].channel_stride / levels[l].row_stride < heights[l] &&
                          at % levels[l].channel_stride % levels[l].row_stride < widths[l];
        count += (buffers[l][i] != kUntouched) != (cell && written);
      }
    }
    return count;
  }

  bool operator==(const TestLevels& other) const {
    for (int l = 0; l < EOSFM_LEVELS; ++l) {
      if (buffers[l] != other.buffers[l]) return false;
    }
    return true;
  }
};

// Streams images and adds up the features that it gives.
struct TestStream {
  eosfm_status status = EOSFM_OK;
  std::vector<double> sums;
  double nodata = 0.0;  // cells
  int64_t tiles = 0;
  int64_t skipped = 0;
  size_t bytes = 0;  // by the plan
  eosfm_stream* stream = nullptr;

  TestStream(eosfm_context* context, const eosfm_model_info& info, int width) {
    sums.assign(EOSFM_LEVELS, 0.0);
    eosfm_stream_band band = EOSFM_STREAM_BAND_INIT;
    bands_.assign(static_cast<size_t>(info.bands), band);
    eosfm_stream_options options = EOSFM_STREAM_OPTIONS_INIT;
    options.width = width;
    options.bands = bands_.data();
    options.band_count = bands_.size();
    status = eosfm_context_get_stream_bytes(context, &options, &bytes);
    if (status == EOSFM_OK) status = eosfm_stream_create(context, &options, &stream);
    std::memcpy(channels_, info.channels, sizeof channels_);
  }
  TestStream(const TestStream&) = delete;
  TestStream& operator=(const TestStream&) = delete;
  ~TestStream() { eosfm_stream_destroy(stream); }

  // Begins another scene.
  void reset() {
    status = eosfm_stream_reset(stream);
    sums.assign(EOSFM_LEVELS, 0.0);
    nodata = 0.0;
    tiles = 0;
    skipped = 0;
    row_ = 0;
  }

  // Goes on to the next patch, to the end, or to what fails.
  eosfm_status step(const TestImage& image, int rows_at_once, const eosfm_run_options* options = nullptr) {
    eosfm_patch_level levels[EOSFM_LEVELS] = EOSFM_PATCH_LEVELS_INIT;
    eosfm_patch patch = EOSFM_PATCH_INIT;
    patch.levels = levels;
    while (stream != nullptr && status == EOSFM_OK) {
      const eosfm_status next = eosfm_stream_pull_patch(stream, options, &patch);
      if (next == EOSFM_OK) add(patch);
      if (next != EOSFM_AGAIN) return next;
      push(image, rows_at_once);
    }
    return status;
  }

  // Goes on until the end, or what fails.
  eosfm_status run(const TestImage& image, int rows_at_once, const eosfm_run_options* options = nullptr) {
    eosfm_status next = status;
    while (next == EOSFM_OK) next = step(image, rows_at_once, options);
    return next == EOSFM_END ? EOSFM_OK : next;
  }

 private:
  void push(const TestImage& image, int count) {
    if (row_ == image.height) {
      status = eosfm_stream_end(stream);
      return;
    }
    count = count < image.height - row_ ? count : image.height - row_;
    int32_t taken = 0;
    for (size_t b = 0; b < bands_.size() && status == EOSFM_OK; ++b) {
      const char* from = static_cast<const char*>(image.bands[b].data);
      status = eosfm_stream_push_rows(stream, static_cast<int32_t>(b),
                                      from + row_ * image.bands[b].row_stride, count, image.width, &taken);
    }
    row_ += taken;
  }

  void add(const eosfm_patch& patch) {
    ++tiles;
    skipped += patch.skipped;
    for (int l = 0; l < EOSFM_LEVELS; ++l) {
      const eosfm_patch_level& level = patch.levels[l];
      for (int c = 0; c < channels_[l]; ++c) {
        for (int y = 0; y < level.height; ++y) {
          for (int x = 0; x < level.width; ++x) {
            const float value = level.data[c * level.channel_stride + y * level.row_stride + x];
            (std::isnan(value) ? nodata : sums[static_cast<size_t>(l)]) +=
                std::isnan(value) ? 1.0 : static_cast<double>(value);
          }
        }
      }
    }
  }

  std::vector<eosfm_stream_band> bands_;
  int32_t channels_[EOSFM_LEVELS];
  int row_ = 0;
};

#endif
