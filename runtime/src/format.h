// Limits of the bundle's format: what its page in export/ allows.
#ifndef EOSFM_FORMAT_H
#define EOSFM_FORMAT_H

#include <stdint.h>

namespace eosfm {

constexpr uint32_t kFormatVersion = 2;
constexpr int kMostBands = 256;
constexpr int kMostSpecialists = 256;
constexpr int kMostRuns = 1024;
constexpr int kMostChannels = 1 << 16;
constexpr int kMostDepth = 64;
constexpr int kMostWidth = 8192;
constexpr int kMostHidden = 4 * kMostWidth;
constexpr int kWidthMultiple = 8;

}  // namespace eosfm

#endif
