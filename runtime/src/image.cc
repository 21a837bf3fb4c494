#include "image.h"

#include <math.h>
#include <string.h>

#include "structs.h"

namespace eosfm {
namespace {

// Returns whether kernels can read a row of pixels: adjacent ones, in this machine's byte order.
bool is_for_kernels(const eosfm_band& band, Pixel* type) {
  if (band.step != 1 || band.column_stride != static_cast<ptrdiff_t>(dtype_bytes(band.dtype))) return false;
  switch (band.dtype) {
    case EOSFM_U8: *type = Pixel::u8; return true;
    case EOSFM_U16: *type = Pixel::u16; return true;
    case EOSFM_I16: *type = Pixel::s16; return true;
    case EOSFM_F32: *type = Pixel::f32; return true;
    default: return false;
  }
}

}  // namespace

eosfm_status ImageReader::set(const eosfm_image* given, const Chain& chain, ErrorText& error) {
  eosfm_status status = check_struct(given, error);
  if (status != EOSFM_OK) return status;
  const eosfm_image image = read_struct(given);
  if (image.bands == nullptr || image.band_count != static_cast<size_t>(chain.bands.size())) {
    return error.fail(EOSFM_BAD_ARGUMENT, "the image has %zu bands, expected %d",
                      image.bands != nullptr ? image.band_count : 0, chain.bands.size());
  }
  status = check_structs(image.bands, image.band_count, error);
  if (status != EOSFM_OK) return status;
  for (int i = 0; i < chain.bands.size(); ++i) {
    const eosfm_band band = read_struct_at(image.bands, i);
    const size_t bytes = dtype_bytes(band.dtype);
    if (band.data == nullptr || bytes == 0) {
      return error.fail(EOSFM_BAD_ARGUMENT, "band %d (%s) has no data, or a dtype that is not known", i,
                        chain.bands[i].name);
    }
    if (reinterpret_cast<uintptr_t>(band.data) % bytes != 0 ||
        band.column_stride % static_cast<ptrdiff_t>(bytes) != 0 ||
        band.row_stride % static_cast<ptrdiff_t>(bytes) != 0) {
      return error.fail(EOSFM_BAD_ARGUMENT,
                        "band %d (%s) is not aligned to its %zu-byte pixels, or "
                        "its strides are no multiples of that",
                        i, chain.bands[i].name, bytes);
    }
    if (band.calibrated != 0 && (!isfinite(band.scale) || band.scale == 0.0F || !isfinite(band.offset))) {
      return error.fail(EOSFM_BAD_ARGUMENT,
                        "band %d (%s) has scale %g and offset %g, expected finite "
                        "numbers and no scale of 0",
                        i, chain.bands[i].name, static_cast<double>(band.scale),
                        static_cast<double>(band.offset));
    }
    if (band.step < 1 || band.step > kMostSide || band.row_origin < 0 || band.row_origin >= band.step ||
        band.column_origin < 0 || band.column_origin >= band.step) {
      return error.fail(EOSFM_BAD_ARGUMENT,
                        "band %d (%s) has a step of %d pixels and begins %d rows and "
                        "%d columns before the image, expected a step of 1 to %d, and to begin less than "
                        "that before",
                        i, chain.bands[i].name, band.step, band.row_origin, band.column_origin, kMostSide);
    }
  }
  image_ = image;
  chain_ = &chain;
  return EOSFM_OK;
}

ImageReader::Calibration ImageReader::calibration_of(const eosfm_band& given, const Band& own,
                                                     Values values) {
  const double none = static_cast<double>(NAN);
  Calibration found = {
      own.scale, own.offset, {own.has_nodata ? static_cast<double>(own.nodata) : none, true}};
  if (given.calibrated != 0) {
    found = {given.scale, given.offset, {given.has_nodata != 0 ? given.nodata : none, false}};
  }
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

void ImageReader::read_band(const Kernels& kernels, Values values, int index, int y, int width, float* to,
                            uint8_t* valid) const {
  const eosfm_band band = read_struct_at(image_.bands, index);
  const Calibration c = calibration_of(band, chain_->bands[index], values);
  const char* from =
      static_cast<const char*>(band.data) + (y + band.row_origin) / band.step * band.row_stride;
  Pixel type;
  if (is_for_kernels(band, &type) &&
      kernels.read_pixels(from, type, width, c.scale, c.offset, static_cast<float>(c.nodata.value), to)) {
    return;
  }
  const auto convert = [&](auto stored) {
    if constexpr (kIsWide<decltype(stored)>) {
      return static_cast<float>(static_cast<double>(stored) * static_cast<double>(c.scale) +
                                static_cast<double>(c.offset));
    } else {
      return static_cast<float>(stored) * c.scale + c.offset;
    }
  };
  const PixelRow row = {from, band.dtype, band.column_stride, c.nodata};
  if (band.step == 1) {
    read_row(row, width, [](int x) { return x; }, convert, to, valid);
  } else {
    read_row(row, width, [&](int x) { return (x + band.column_origin) / band.step; }, convert, to, valid);
  }
}

void ImageReader::apply_mask(int y, int width, uint8_t* valid) const {
  if (image_.mask == nullptr) return;
  const ptrdiff_t column_stride = image_.mask_column_stride != 0 ? image_.mask_column_stride : 1;
  const ptrdiff_t row_stride = image_.mask_row_stride != 0 ? image_.mask_row_stride : width * column_stride;
  const uint8_t* mask = image_.mask + y * row_stride;
  for (int x = 0; x < width; ++x) {
    if (mask[x * column_stride] == 0) valid[x] = 0;
  }
}

void ImageReader::read_rows(const Kernels& kernels, Values values, int first, int rows, int width, int height,
                            float* planes, uint8_t* valid) const {
  const size_t plane = static_cast<size_t>(width) * height;
  for (int y = first; y < first + rows; ++y) {
    const size_t at = static_cast<size_t>(y) * width;
    uint8_t* good = valid + at;
    memset(good, 1, static_cast<size_t>(width));
    for (int b = 0; b < chain_->bands.size(); ++b) {
      read_band(kernels, values, b, y, width, planes + static_cast<size_t>(b) * plane + at, good);
    }
    apply_mask(y, width, good);
    if (memchr(good, 0, static_cast<size_t>(width)) == nullptr) continue;
    for (int b = 0; b < chain_->bands.size(); ++b) {
      const Band& own = chain_->bands[b];  // its fill is a value as the bundle's sensor stores it
      const float fill = values == Values::stored ? own.fill : own.fill * own.scale + own.offset;
      float* to = planes + static_cast<size_t>(b) * plane + at;
      for (int x = 0; x < width; ++x) to[x] = good[x] != 0 ? to[x] : fill;
    }
  }
}

}  // namespace eosfm
