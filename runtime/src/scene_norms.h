// GRN's norms over all images of a scene: sums of squares that its images' runs leave, added up.
#ifndef EOSFM_SCENE_NORMS_H
#define EOSFM_SCENE_NORMS_H

#include "model.h"

namespace eosfm {

class SceneNorms {
 public:
  // Finds the place of everything; called once without memory, for the size.
  void lay_out(Layout& layout, const Chain& chain, const PackedModel& packed);

  // Returns where a run finds the gathered sums, or leaves those of its image.
  double* squares(int run, eosfm_grn mode) const {
    return mode == EOSFM_GRN_SCENE ? sums_[run].all : sums_[run].fresh;
  }
  // Forgets what was gathered.
  void forget(const Chain& chain);
  // Adds the sums of an image to what was gathered, of the specialists that are present.
  void keep(const Chain& chain, const uint8_t* present);
  // Checks that sums of every active specialist were gathered.
  eosfm_status check(const Chain& chain, const uint8_t* active, ErrorText& error) const;

 private:
  // Of one run, over all its hidden channels.
  struct Sums {
    double* all;    // of the images that were gathered
    double* fresh;  // of the image that is being run
    size_t count;
    bool any;  // whether there was an image
  };

  Sums* sums_ = nullptr;  // [runs]
};

}  // namespace eosfm

#endif
