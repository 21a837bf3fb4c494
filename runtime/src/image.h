// The caller's image: checked, and turned into planes of physical values.
#ifndef EOSFM_IMAGE_H
#define EOSFM_IMAGE_H

#include "chain.h"
#include "pixels.h"
#include "status.h"

namespace eosfm {

constexpr int kMostSide = 1024;

// The unit in which values are read: physical, or as the bundle's sensor stores them.
enum class Values { physical, stored };

// An image whose bands are checked and whose calibration is the caller's or the bundle's.
class ImageReader {
 public:
  // Checks an image against the chain's bands; neither is copied.
  eosfm_status set(const eosfm_image* given, const Chain& chain, ErrorText& error);

  // Reads rows into planes [bands][height][width], and whether each pixel is valid into [height][width]. Pixels that
  // are not valid are filled in all bands.
  void read_rows(const Kernels& kernels, Values values, int first, int rows, int width, int height,
                 float* planes, uint8_t* valid) const;

 private:
  struct Calibration {
    float scale;
    float offset;
    Nodata nodata;
  };
  static Calibration calibration_of(const eosfm_band& given, const Band& own, Values values);

  void read_band(const Kernels& kernels, Values values, int band, int y, int width, float* to,
                 uint8_t* valid) const;
  void apply_mask(int y, int width, uint8_t* valid) const;

  eosfm_image image_ = EOSFM_IMAGE_INIT;  // its bands are the caller's, of the caller's size
  const Chain* chain_ = nullptr;
};

}  // namespace eosfm

#endif
