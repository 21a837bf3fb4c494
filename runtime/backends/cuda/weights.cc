#include "weights.h"

#include "half.h"

namespace eosfm {
namespace {

int per_word(gpu::Kind kind) { return kind == gpu::kByte ? 4 : kind == gpu::kHalf ? 2 : 1; }

// Returns one column's word `word` of a group that begins at element `first` of k.
uint32_t word_at(const Matrix& matrix, gpu::Kind kind, int first, int size, int word, int column,
                 bool* in_range) {
  const size_t columns = static_cast<size_t>(matrix.vectors) * 8;
  const auto float_bits = [&](int k) { return k < size ? matrix.words[(first + k) * columns + column] : 0U; };
  if (kind == gpu::kByte) {
    // Groups are multiples of eight elements, so they begin and end with words.
    return word < size / 4 ? matrix.words[(first / 4 + word) * columns + column] : 0U;
  }
  if (kind == gpu::kFloat) return float_bits(word);
  uint32_t halves[2];
  for (int i = 0; i < 2; ++i) {
    const uint32_t bits = float_bits(2 * word + i);
    float value;
    memcpy(&value, &bits, sizeof value);
    halves[i] = half_of(value);
    *in_range = *in_range && (halves[i] & 0x7fffU) < 0x7c00U;
  }
  return halves[0] | halves[1] << 16;
}

}  // namespace

const Kernels kGpuPacking = {"gpu",   8,       1 << 20, 1,       Storage::s8, false,  nullptr,
                             nullptr, nullptr, nullptr, nullptr, nullptr,     nullptr};

gpu::Kind kind_of(const Matrix& matrix, bool all_float) {
  if (is_integer(matrix.storage)) return gpu::kByte;
  return all_float ? gpu::kFloat : gpu::kHalf;
}

int words_of(gpu::Kind kind, const KGroups& groups) {
  size_t words = 0;
  for (int g = 0; g < groups.count; ++g) {
    const size_t per = static_cast<size_t>(per_word(kind));
    words += round_up((static_cast<size_t>(groups.sizes[g]) + per - 1) / per, 16);
  }
  return static_cast<int>(words);
}

bool to_panels(const Matrix& matrix, gpu::Kind kind, const KGroups& groups, uint32_t* panels) {
  const int total = words_of(kind, groups);
  bool in_range = true;
  int first = 0;       // of the group's elements
  int first_word = 0;  // of its words
  for (int g = 0; g < groups.count; ++g) {
    const int size = groups.sizes[g];
    const KGroups one = {&size, 1};
    const int words = words_of(kind, one);
    for (int tile = 0; tile < tiles_of(matrix); ++tile) {
      uint32_t* to = panels + (static_cast<size_t>(tile) * total + first_word) * 8;
      for (int k = 0; k < words; k += 16) {
        for (int lane = 0; lane < 32; ++lane) {
          for (int i = 0; i < 4; ++i) {
            *to++ = word_at(matrix, kind, first, size, k + lane % 4 + 4 * i, 8 * tile + lane / 4, &in_range);
          }
        }
      }
    }
    first += size;
    first_word += words;
  }
  return in_range;
}

}  // namespace eosfm
