#include "swath.h"

#include <math.h>

#include "image.h"

namespace eosfm {
namespace {

int ceiling(int value, int step) { return (value + step - 1) / step; }

// The place in [0, count) of what is `count` long and goes to and fro: 0 1 2 2 1 0 0 1 2 ...
int mirrored(int place, int count) {
  const int turn = place % (2 * count);
  return turn < count ? turn : 2 * count - 1 - turn;
}

// How values as the caller stores them become values as the bundle's sensor stores them.
struct Conversion {
  bool same;
  double scale;
  double offset;
  float nodata;  // as the caller stores it; NaN: there is none

  Conversion(const eosfm_stream_band& how, const Band& own) {
    same = how.calibrated == 0 ||
           (how.scale == own.physical_scale && how.offset == own.physical_offset);
    scale = static_cast<double>(how.scale) / static_cast<double>(own.physical_scale);
    offset = (static_cast<double>(how.offset) - static_cast<double>(own.physical_offset)) /
             static_cast<double>(own.physical_scale);
    const bool has_nodata = how.calibrated != 0 ? how.has_nodata != 0 : own.has_nodata;
    nodata = !has_nodata ? NAN : how.calibrated != 0 ? how.nodata : own.nodata;
  }
};

template <class T>
void read_row(const char* row, const int* columns, int width, const Conversion& conversion, float* to,
              uint8_t* valid) {
  const T* pixels = reinterpret_cast<const T*>(row);
  for (int x = 0; x < width; ++x) {
    const float stored = static_cast<float>(pixels[columns[x]]);
    to[x] = conversion.same ? stored
                            : static_cast<float>(static_cast<double>(stored) * conversion.scale +
                                                 conversion.offset);
    if (stored == conversion.nodata || !isfinite(to[x])) valid[x] = 0;
  }
}

}  // namespace

void Swath::lay_out(Layout& layout, const eosfm_stream_options& options, const Chain& chain,
                    int tile_width, int tile_height, int most_back) {
  count_ = chain.bands.size();
  tile_width_ = tile_width;
  tile_height_ = tile_height;
  most_back_ = most_back;
  int coarsest = 1;
  for (int b = 0; b < count_; ++b) {
    const int step = options.bands[b].step;
    coarsest = step > coarsest ? step : coarsest;
  }
  bands_ = layout.take<BandRows>(static_cast<size_t>(count_));
  for (int b = 0; b < count_; ++b) {
    const eosfm_stream_band& how = options.bands[b];
    const int width = ceiling(options.width + how.column_origin, how.step);
    // A row more than a tile tells that the tile's row is not the last. Bands whose rows cover more of
    // the scene go beyond that, and a row may begin before the tile does. Bands need not end together: the
    // rows that a last tile is moved back to are kept until it is known to be no last one.
    const int capacity = ceiling(most_back + tile_height + coarsest, how.step) + 1;
    BandRows band = {how, &chain.bands[b], nullptr, nullptr, nullptr, width, capacity, 0};
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
  const ptrdiff_t row_stride =
      band.how.row_stride != 0 ? band.how.row_stride : column_stride * band.width;
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
        memcpy(to + static_cast<size_t>(x) * pixel, from + taken * row_stride + x * column_stride,
               pixel);
      }
    }
    ++band.pushed;
  }
  return taken;
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

void Swath::read_rows(int first, int rows, float* planes, uint8_t* valid) const {
  const size_t width = static_cast<size_t>(tile_width_);
  const size_t plane = width * tile_height_;
  for (int y = first; y < first + rows; ++y) {
    uint8_t* good = valid + static_cast<size_t>(y) * width;
    float* row = planes + static_cast<size_t>(y) * width;
    const int64_t source = place_.row + mirrored(y, place_.height);
    memset(good, 1, width);
    for (int b = 0; b < count_; ++b) {
      const BandRows& band = bands_[b];
      const int64_t covering = (source + band.how.row_origin) / band.how.step;
      const int held = static_cast<int>(covering % band.capacity);
      const char* from = band.pixels + static_cast<size_t>(held) * band.width *
                                           dtype_bytes(band.how.dtype);
      float* to = row + static_cast<size_t>(b) * plane;
      const Conversion conversion(band.how, *band.own);
      if (band.present[held] == 0) {
        memset(good, 0, width);
        break;
      }
      const auto read = [&](auto read_row_of) {
        read_row_of(from, band.columns, tile_width_, conversion, to, good);
      };
      switch (band.how.dtype) {
        case EOSFM_U8: read(read_row<uint8_t>); break;
        case EOSFM_U16: read(read_row<uint16_t>); break;
        case EOSFM_I16: read(read_row<int16_t>); break;
        case EOSFM_F32: read(read_row<float>); break;
      }
    }
    for (int b = 0; b < count_; ++b) {
      float* to = row + static_cast<size_t>(b) * plane;
      for (int x = 0; x < tile_width_; ++x) to[x] = good[x] != 0 ? to[x] : bands_[b].own->fill;
    }
    // What is mirrored was measured, but elsewhere.
    if (y >= place_.height) memset(good, 0, width);
    for (int x = place_.width; x < tile_width_; ++x) good[x] = 0;
  }
}

}  // namespace eosfm
