// The chain's file: input bands, runs of specialists, normalisation, projection, selection, fusion,
// and the known answer.
#ifndef EOSFM_CHAIN_H
#define EOSFM_CHAIN_H

#include "format.h"
#include "gguf.h"
#include "network.h"
#include "packing.h"

namespace eosfm {

constexpr int kLevels = kStages;

enum class Normalisation { none, batch, layer };
enum class Fusion { none, conv1x1, mlp, addition, multiplication };

struct Band {
  char name[64];
  float wavelength_nm;  // 0: not known
  float scale;  // specialists see stored * scale + offset
  float offset;
  float
      physical_scale;  // of physical units, in which callers calibrate; the same unless values are standardised
  float physical_offset;
  float fill;
  float nodata;
  bool has_nodata;
};

struct ChainSpecialist {
  char name[80];
  char file[160];
  char digest[80];  // of the file's tensors, as it says itself; "": any file that fits
  float factor;  // of the selection
};

// An ONNX graph, which takes the image or tensors of the graphs before it.
struct ChainGraph {
  char file[160];
};

// One run of a specialist over some of the bands. It gives a feature set.
struct Run {
  int specialist;
  int first_band;  // in Chain::run_bands
  int bands;
  int out_channel[kLevels];  // fusion none: where the set's channels go
};

struct Chain {
  Gguf file;
  char name[80];
  int tile = 0;
  Array<Band> bands;
  Array<ChainSpecialist> specialists;
  Array<Run> runs;
  Array<int> run_bands;
  Normalisation normalisation = Normalisation::none;
  bool projection = false;
  Fusion fusion = Fusion::none;
  int level_channels[kLevels];
  float tolerance[kLevels];  // of the known answer; as graphs give it, where the file has no other
  Array<ChainGraph> graphs;  // for engines that compute from graphs, in the order in which they run
  float graph_tolerance[kLevels];  // of the known answer as graphs give it

  eosfm_status parse(const eosfm_allocator& allocator, Bytes bytes, const char* file_name, ErrorText& error);

  // Checks the chain against the specialists' files; `widths` is [specialist][level].
  eosfm_status check(const int (*widths)[kLevels], ErrorText& error);

  // Returns the channels of a specialist's feature sets at a level, after projection.
  int set_channels(int specialist, int level) const { return set_channels_[specialist][level]; }

  // The known answer, channels first.
  const Tensor* known_image() const { return file.find_tensor("known.image"); }
  const Tensor* known_level(int level) const;

 private:
  eosfm_status parse_bands(ErrorText& error);
  eosfm_status parse_specialists(ErrorText& error);
  eosfm_status parse_runs(ErrorText& error);
  eosfm_status parse_modes(ErrorText& error);
  eosfm_status parse_graphs(ErrorText& error);
  eosfm_status parse_tolerances(const char* key, float (&tolerances)[kLevels], ErrorText& error);
  eosfm_status check_known_answer(ErrorText& error);
  eosfm_status check_fusion(int level, ErrorText& error);

  int set_channels_[kMostSpecialists][kLevels];
};

// The chain's weights for one feature set: how a specialist's level becomes columns of features.
struct SetWeights {
  const float* scale = nullptr;  // [padded width]: batch normalisation, and the factor
  const float* shift = nullptr;
  Matrix projection;  // no words: none
  const float* factor = nullptr;  // after a projection, [padded channels]
  int channels = 0;
  int padded = 0;
  int column = 0;  // first column of the set's features among all sets'
};

struct ChainWeights {
  Storage storage = Storage::f32;  // of all sets' features
  int columns[kLevels] = {0, 0, 0, 0};  // of all sets together
  Array<SetWeights> sets[kLevels];  // one for each run
  Matrix first[kLevels];  // conv1x1, or the mlp's first
  Matrix second[kLevels];
  Span memory;

  // Lays the weights out, as a specialist does: without memory, or with it and packed.
  eosfm_status shape(const Chain& chain, const int (*widths)[kLevels], const Kernels& kernels,
                     bool widest_bf16, size_t* bytes, ErrorText& error);
  eosfm_status pack(const Chain& chain, const int (*widths)[kLevels], const Kernels& kernels,
                    bool widest_bf16, ErrorText& error);

 private:
  eosfm_status lay_out(const Chain& chain, const int (*widths)[kLevels], const Kernels& kernels,
                       Packer& packer, Layout& layout, ErrorText& error);
  eosfm_status lay_out_set(const Chain& chain, int specialist, int level, int width, const Kernels& kernels,
                           Packer& packer, Layout& layout, SetWeights* set, ErrorText& error);
  eosfm_status lay_out_fusion(const Chain& chain, int level, Packer& packer, Layout& layout,
                              ErrorText& error);
};

}  // namespace eosfm

#endif
