#include "image.h"

#include <math.h>

namespace eosfm {

size_t dtype_bytes(int32_t dtype) {
  switch (dtype) {
    case EOSFM_U8: return 1;
    case EOSFM_U16:
    case EOSFM_I16: return 2;
    case EOSFM_F32: return 4;
    default: return 0;
  }
}

namespace {

// One row of a band, pixel by pixel: `bad` is set where the value is nodata or not finite.
template <class T>
void read_row(const char* from, ptrdiff_t stride, int width, float scale, float offset,
              float nodata, float* to, uint8_t* bad) {
  for (int x = 0; x < width; ++x) {
    const float stored = static_cast<float>(*reinterpret_cast<const T*>(from + x * stride));
    to[x] = stored * scale + offset;
    if (stored == nodata || !isfinite(to[x])) bad[x] = 1;
  }
}

Pixel pixel_of(int32_t dtype) {
  switch (dtype) {
    case EOSFM_U8: return Pixel::u8;
    case EOSFM_U16: return Pixel::u16;
    case EOSFM_I16: return Pixel::s16;
    default: return Pixel::f32;
  }
}

}  // namespace

eosfm_status ImageReader::set(const eosfm_image* image, const Chain& chain, ErrorText& error) {
  if (image == nullptr || image->struct_size < sizeof(eosfm_image) || image->bands == nullptr) {
    return error.fail(EOSFM_BAD_ARGUMENT, "there is no image, or its struct_size is not set");
  }
  if (image->band_count != static_cast<size_t>(chain.bands.size())) {
    return error.fail(EOSFM_BAD_ARGUMENT, "the image has %zu bands, expected %d", image->band_count,
                      chain.bands.size());
  }
  for (int i = 0; i < chain.bands.size(); ++i) {
    const eosfm_band& band = image->bands[i];
    const size_t bytes = dtype_bytes(band.dtype);
    if (band.struct_size != sizeof(eosfm_band) || band.data == nullptr || bytes == 0) {
      return error.fail(EOSFM_BAD_ARGUMENT, "band %d (%s) has no data, a dtype that is not known, or "
                        "its struct_size is not set", i, chain.bands[i].name);
    }
    if (reinterpret_cast<uintptr_t>(band.data) % bytes != 0 ||
        band.column_stride % static_cast<ptrdiff_t>(bytes) != 0 ||
        band.row_stride % static_cast<ptrdiff_t>(bytes) != 0) {
      return error.fail(EOSFM_BAD_ARGUMENT, "band %d (%s) is not aligned to its %zu-byte pixels, or "
                        "its strides are no multiples of that", i, chain.bands[i].name, bytes);
    }
    if (band.calibrated != 0 && (!isfinite(band.scale) || band.scale == 0.0F ||
                                 !isfinite(band.offset))) {
      return error.fail(EOSFM_BAD_ARGUMENT, "band %d (%s) has scale %g and offset %g, expected finite "
                        "numbers and no scale of 0", i, chain.bands[i].name,
                        static_cast<double>(band.scale), static_cast<double>(band.offset));
    }
  }
  bands_ = image->bands;
  chain_ = &chain;
  return EOSFM_OK;
}

ImageReader::Calibration ImageReader::calibration_of(int band, Values values) const {
  const eosfm_band& given = bands_[band];
  const Band& own = chain_->bands[band];
  Calibration found = {own.scale, own.offset, own.has_nodata, own.nodata};
  if (given.calibrated != 0) found = {given.scale, given.offset, given.has_nodata != 0, given.nodata};
  if (given.calibrated != 0 && (own.physical_scale != own.scale || own.physical_offset != own.offset)) {
    // The caller's physical values are standardised for the specialists, as the bundle's own are.
    const float factor = own.scale / own.physical_scale;
    found.offset = (found.offset - own.physical_offset) * factor + own.offset;
    found.scale *= factor;
  }
  if (values == Values::physical) return found;
  found.offset = (found.offset - own.offset) / own.scale;
  found.scale = found.scale / own.scale;
  return found;
}

void ImageReader::read_rows(const Kernels& kernels, Values values, int first, int rows, int width,
                            int height, float* planes, uint8_t* valid) const {
  const size_t plane = static_cast<size_t>(width) * height;
  for (int y = first; y < first + rows; ++y) {
    uint8_t bad[kMostSide] = {0};
    float* row = planes + static_cast<size_t>(y) * width;
    for (int b = 0; b < chain_->bands.size(); ++b) {
      const eosfm_band& band = bands_[b];
      const Calibration c = calibration_of(b, values);
      const float nodata = c.has_nodata ? c.nodata : NAN;
      const char* from = static_cast<const char*>(band.data) + y * band.row_stride;
      float* to = row + static_cast<size_t>(b) * plane;
      const ptrdiff_t stride = band.column_stride;
      if (stride == static_cast<ptrdiff_t>(dtype_bytes(band.dtype)) &&
          kernels.read_pixels(from, pixel_of(band.dtype), width, c.scale, c.offset, nodata, to)) {
        continue;
      }
      const auto read = [&](auto read_row_of) {
        read_row_of(from, stride, width, c.scale, c.offset, nodata, to, bad);
      };
      switch (band.dtype) {
        case EOSFM_U8: read(read_row<uint8_t>); break;
        case EOSFM_U16: read(read_row<uint16_t>); break;
        case EOSFM_I16: read(read_row<int16_t>); break;
        case EOSFM_F32: read(read_row<float>); break;
      }
    }
    uint8_t any = 0;
    for (int x = 0; x < width; ++x) {
      any |= bad[x];
      valid[static_cast<size_t>(y) * width + x] = bad[x] == 0 ? 1 : 0;
    }
    if (any == 0) continue;
    for (int b = 0; b < chain_->bands.size(); ++b) {
      const Band& own = chain_->bands[b];  // its fill is a value as the bundle's sensor stores it
      const float fill = values == Values::stored ? own.fill : own.fill * own.scale + own.offset;
      float* to = row + static_cast<size_t>(b) * plane;
      for (int x = 0; x < width; ++x) to[x] = bad[x] != 0 ? fill : to[x];
    }
  }
}

}  // namespace eosfm
