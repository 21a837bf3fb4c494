// A head: a linear function of the levels that gives an answer for every cell of the finest level that it reads.
//
// A linear map and bilinear resampling commute: head.cc multiplies each level where it is and resamples the few
// outputs, not the many channels. Channels are added in their order, whatever thread or instruction set computes, so
// equal levels give equal answers.
#ifndef EOSFM_HEAD_H
#define EOSFM_HEAD_H

#include "model.h"
#include "team.h"

namespace eosfm {

constexpr int kMostHeads = EOSFM_MOST_HEADS;
constexpr int kMostOutputs = 254;  // of a head: a class has a code of a byte, and one code is nodata's

struct HeadClass {
  char name[80];
  uint8_t code;
  uint8_t colour[3];  // red, green, blue
};

}  // namespace eosfm

struct eosfm_head {
 public:
  explicit eosfm_head(eosfm_model* of) : model_(of) {}
  eosfm_head(const eosfm_head&) = delete;
  eosfm_head& operator=(const eosfm_head&) = delete;

  // Reads the file of a name and checks it against the bundle's levels and its own known answer.
  eosfm_status load(const char* name, eosfm::ErrorText& error);

  // Checks what the caller gives, and computes the answer for an image.
  eosfm_status apply(const eosfm_level* levels, int width, int height, const eosfm_map* map,
                     eosfm::ErrorText& error) const;

  // Computes the outputs of every cell from the levels of an image of so many pixels. `to` has a plane for each.
  void compute(const eosfm_level* levels, int width, int height, const eosfm_level& to,
               eosfm::Team& team) const;
  // Turns each cell's outputs into probabilities, which add up to 1.
  void normalise(const eosfm_level& outputs, int width, int height) const;
  // Writes the code of each cell's class with the largest output, nodata's where one is not a number.
  void classify(const eosfm_level& outputs, int width, int height, uint8_t* to, ptrdiff_t row_stride) const;

  eosfm_model* model() const { return model_; }
  const char* name() const { return name_; }
  eosfm_task task() const { return task_; }
  int outputs() const { return outputs_; }
  int level() const { return level_; }  // whose cells it answers for
  bool reads(int level) const { return reads_[level]; }
  const eosfm::HeadClass& class_at(int i) const { return classes_[i]; }

  void retain() { references_.fetch_add(1, std::memory_order_relaxed); }
  // Drops a reference, and with the last of them the head and its reference to the model.
  static void drop(eosfm_head* head);

 private:
  eosfm_status parse(const eosfm::Gguf& file, eosfm::ErrorText& error);
  eosfm_status parse_classes(const eosfm::Gguf& file, eosfm::ErrorText& error);
  eosfm_status copy_weights(const eosfm::Gguf& file, eosfm::ErrorText& error);
  eosfm_status check_known_answer(const eosfm::Gguf& file, eosfm::ErrorText& error) const;
  void compute_rows(const eosfm_level* levels, int width, int height, int output, int first, int rows,
                    float* plane, ptrdiff_t row_stride) const;
  void add_products(const eosfm_level& level, int index, int output, int y, int width,
                    float* __restrict__ row) const;

  eosfm_model* model_;
  char name_[80] = "";
  eosfm_task task_ = EOSFM_CLASSES;
  int outputs_ = 0;
  int level_ = 0;
  bool reads_[eosfm::kLevels] = {};
  float* weights_[eosfm::kLevels] = {};  // [outputs][channels] of each level that it reads
  float* bias_ = nullptr;  // [outputs]
  eosfm::Span memory_;
  eosfm::Array<eosfm::HeadClass> classes_;
  std::atomic<int> references_{1};
};

#endif
