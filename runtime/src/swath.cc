#include "swath.h"

#include <math.h>

#include "pixels.h"
#include "structs.h"

namespace eosfm {
namespace {

int ceiling(int value, int step) { return (value + step - 1) / step; }

// Returns the place in [0, count) of a walk that goes to and fro: 0 1 2 2 1 0 0 1 2 ...
int mirrored(int place, int count) {
  const int turn = place % (2 * count);
  return turn < count ? turn : 2 * count - 1 - turn;
}

// Converts values as the caller stores them into values as the bundle's sensor stores them.
struct Conversion {
  bool same;
  double scale;
  double offset;
  Nodata nodata;

  Conversion(const eosfm_stream_band& how, const Band& own) {
    same = how.calibrated == 0 || (how.scale == own.physical_scale && how.offset == own.physical_offset);
    scale = static_cast<double>(how.scale) / static_cast<double>(own.physical_scale);
    offset = (static_cast<double>(how.offset) - static_cast<double>(own.physical_offset)) /
             static_cast<double>(own.physical_scale);
    const double none = static_cast<double>(NAN);
    nodata = how.calibrated != 0 ? Nodata{how.has_nodata != 0 ? how.nodata : none, false}
                                 : Nodata{own.has_nodata ? static_cast<double>(own.nodata) : none, true};
  }

  template <class T>
  float operator()(T stored) const {
    return same ? static_cast<float>(stored)
                : static_cast<float>(static_cast<double>(stored) * scale + offset);
  }
};

}  // namespace

void Swath::lay_out(Layout& layout, const eosfm_stream_options& options, const Chain& chain, int tile_width,
                    int tile_height, int most_back) {
  const int bands = chain.bands.size();
  mask_ = options.mask != nullptr ? bands : -1;
  count_ = bands + (options.mask != nullptr ? 1 : 0);
  tile_width_ = tile_width;
  tile_height_ = tile_height;
  most_back_ = most_back;
  const auto given = [&](int b) {
    return b == mask_ ? read_struct(options.mask) : read_struct_at(options.bands, b);
  };
  int coarsest = 1;
  for (int b = 0; b < count_; ++b) {
    const int step = given(b).step;
    coarsest = step > coarsest ? step : coarsest;
  }
  bands_ = layout.take<BandRows>(static_cast<size_t>(count_));
  for (int b = 0; b < count_; ++b) {
    const eosfm_stream_band how = given(b);
    const int width = ceiling(options.width + how.column_origin, how.step);
    // A row more than a tile tells that the tile's row is not the last. Bands whose rows cover more of
    // the scene go beyond that, and a row may begin before the tile does. Bands need not end together: the
    // rows that a last tile is moved back to are kept until it is known to be no last one.
    const int capacity = ceiling(most_back + tile_height + coarsest, how.step) + 1;
    const Band* own = b == mask_ ? nullptr : &chain.bands[b];
    BandRows band = {how, own, nullptr, nullptr, nullptr, width, capacity, 0};
    band.pixels = layout.take<char>(static_cast<size_t>(capacity) * width * dtype_bytes(how.dtype));
    band.present = layout.take<uint8_t>(static_cast<size_t>(capacity));
    band.columns = layout.take<int>(static_cast<size_t>(tile_width));
    if (bands_ != nullptr) bands_[b] = band;
  }
}

int Swath::push(int index, const void* rows, int count, int64_t needed) {
  BandRows& band = bands_[index];
  const size_t pixel = dtype_bytes(band.how.dtype);
  const size_t row_bytes = pixel * band.width;
  const ptrdiff_t dense = static_cast<ptrdiff_t>(pixel);
  const ptrdiff_t column_stride = band.how.column_stride != 0 ? band.how.column_stride : dense;
  const ptrdiff_t row_stride = band.how.row_stride != 0 ? band.how.row_stride : column_stride * band.width;
  const char* from = static_cast<const char*>(rows);
  int taken = 0;
  const int64_t kept = needed > most_back_ ? needed - most_back_ : 0;
  const int64_t oldest = (kept + band.how.row_origin) / band.how.step;
  for (; taken < count && band.pushed - band.capacity < oldest; ++taken) {
    const int place = static_cast<int>(band.pushed % band.capacity);
    char* to = band.pixels + static_cast<size_t>(place) * row_bytes;
    band.present[place] = rows != nullptr ? 1 : 0;
    if (rows != nullptr && column_stride == dense) {
      memcpy(to, from + taken * row_stride, row_bytes);
    } else if (rows != nullptr) {
      for (int x = 0; x < band.width; ++x) {
        memcpy(to + static_cast<size_t>(x) * pixel, from + taken * row_stride + x * column_stride, pixel);
      }
    }
    ++band.pushed;
  }
  return taken;
}

void Swath::reset() {
  for (int b = 0; b < count_; ++b) bands_[b].pushed = 0;
}

int64_t Swath::rows() const {
  int64_t least = INT64_MAX;
  for (int b = 0; b < count_; ++b) {
    const eosfm_stream_band& how = bands_[b].how;
    const int64_t rows = bands_[b].pushed * how.step - how.row_origin;
    least = rows < least ? rows : least;
  }
  return least > 0 ? least : 0;
}

void Swath::set_tile(const TilePlace& place) {
  place_ = place;
  for (int b = 0; b < count_; ++b) {
    for (int x = 0; x < tile_width_; ++x) {
      const eosfm_stream_band& how = bands_[b].how;
      bands_[b].columns[x] = (place.column + mirrored(x, place.width) + how.column_origin) / how.step;
    }
  }
}

void Swath::read_band(const BandRows& band, int64_t source, float* to, uint8_t* valid) const {
  const int64_t covering = (source + band.how.row_origin) / band.how.step;
  const int held = static_cast<int>(covering % band.capacity);
  const size_t pixel = dtype_bytes(band.how.dtype);
  const char* from = band.pixels + static_cast<size_t>(held) * band.width * pixel;
  if (band.present[held] == 0) {
    memset(valid, 0, static_cast<size_t>(tile_width_));
    return;
  }
  if (band.own == nullptr) {
    for (int x = 0; x < tile_width_; ++x) {
      if (from[band.columns[x]] == 0) valid[x] = 0;
    }
    return;
  }
  const Conversion conversion(band.how, *band.own);
  const PixelRow row = {from, band.how.dtype, static_cast<ptrdiff_t>(pixel), conversion.nodata};
  read_row(row, tile_width_, [&](int x) { return band.columns[x]; }, conversion, to, valid);
}

void Swath::read_rows(int first, int rows, float* planes, uint8_t* valid) const {
  const size_t width = static_cast<size_t>(tile_width_);
  const size_t plane = width * tile_height_;
  for (int y = first; y < first + rows; ++y) {
    uint8_t* good = valid + static_cast<size_t>(y) * width;
    float* row = planes + static_cast<size_t>(y) * width;
    const int64_t source = place_.row + mirrored(y, place_.height);
    memset(good, 1, width);
    for (int b = 0; b < count_; ++b) {
      read_band(bands_[b], source, b == mask_ ? nullptr : row + static_cast<size_t>(b) * plane, good);
    }
    for (int b = 0; b < count_; ++b) {
      if (b == mask_) continue;
      float* to = row + static_cast<size_t>(b) * plane;
      for (int x = 0; x < tile_width_; ++x) to[x] = good[x] != 0 ? to[x] : bands_[b].own->fill;
    }
    // Mirrored pixels are not valid: they were measured elsewhere.
    if (y >= place_.height) memset(good, 0, width);
    for (int x = place_.width; x < tile_width_; ++x) good[x] = 0;
  }
}

}  // namespace eosfm
