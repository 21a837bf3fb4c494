#include "specialist.h"

#include <stdio.h>
#include <string.h>

namespace eosfm {
namespace {

int padded_to(int channels, int lanes) {
  return static_cast<int>(round_up(static_cast<size_t>(channels), static_cast<size_t>(lanes)));
}

}  // namespace

eosfm_status Specialist::parse(const eosfm_allocator& allocator, Bytes bytes, const char* file_name,
                               const Kernels& kernels, ErrorText& error) {
  eosfm_status status = file.parse(allocator, bytes, file_name, error);
  if (status != EOSFM_OK) return status;
  status = file.expect("eosfm-specialist", kFormatVersion, error);
  if (status == EOSFM_OK) {
    status = file.read_text("eosfm.backbone", backbone, sizeof backbone, error);
  }
  if (status == EOSFM_OK) {
    status = file.read_optional_text("eosfm.licence", licence, sizeof licence, error);
  }
  if (status == EOSFM_OK) {
    status = file.read_optional_text("eosfm.tensors_sha256", digest, sizeof digest, error);
  }
  uint32_t value = 0;
  if (status == EOSFM_OK) status = file.read_uint("eosfm.bands", 1, kMostBands, &value, error);
  if (status != EOSFM_OK) return status;
  bands = static_cast<int>(value);

  uint32_t count = 0;
  int blocks = 0;
  status = file.read_count("eosfm.depths", kStages, kStages, &count, error);
  if (status == EOSFM_OK) status = file.read_count("eosfm.widths", kStages, kStages, &count, error);
  for (uint32_t s = 0; status == EOSFM_OK && s < kStages; ++s) {
    status = file.read_uint_at("eosfm.depths", s, 1, kMostDepth, &value, error);
    depths[s] = static_cast<int>(value);
    blocks += depths[s];
    if (status != EOSFM_OK) break;
    status = file.read_uint_at("eosfm.widths", s, kWidthMultiple, kMostWidth, &value, error);
    widths[s] = static_cast<int>(value);
  }
  if (status != EOSFM_OK) return status;
  const uint32_t expected = static_cast<uint32_t>(blocks);
  status = file.read_count("eosfm.hidden", expected, expected, &count, error);
  uint32_t index = 0;
  for (int s = 0; s < kStages; ++s) {
    for (int b = 0; status == EOSFM_OK && b < depths[s]; ++b) {
      status = file.read_uint_at("eosfm.hidden", index++, kWidthMultiple, kMostHidden, &value, error);
      hidden[s][b] = static_cast<int>(value);
      if (status == EOSFM_OK && value % kWidthMultiple != 0) {
        return error.fail(EOSFM_BAD_BUNDLE, "a hidden width of %s is %d, expected a multiple of %d",
                          file_name, hidden[s][b], kWidthMultiple);
      }
    }
    if (status == EOSFM_OK && widths[s] % kWidthMultiple != 0) {
      return error.fail(EOSFM_BAD_BUNDLE, "a width of %s is %d, expected a multiple of %d", file_name,
                        widths[s], kWidthMultiple);
    }
  }
  if (status != EOSFM_OK) return status;

  // Laying out checks every tensor, alike on all isas.
  NetworkWeights weights;
  size_t size = 0;
  return shape(kernels, false, &weights, &size, error);
}

eosfm_status Specialist::shape(const Kernels& kernels, bool widest_bf16, NetworkWeights* weights,
                               size_t* bytes, ErrorText& error) const {
  Packer packer(file, kernels, widest_bf16, error);
  Layout layout;
  const eosfm_status status = lay_out(packer, kernels, layout, weights);
  *bytes += layout.size();
  for (const int depth : depths) *bytes += bytes_of<BlockWeights>(depth);
  return status;
}

eosfm_status Specialist::pack(const Kernels& kernels, bool widest_bf16, NetworkWeights* weights,
                              ErrorText& error) const {
  Packer packer(file, kernels, widest_bf16, error);
  Layout sizes;
  {
    NetworkWeights shapes;
    const eosfm_status status = lay_out(packer, kernels, sizes, &shapes);
    if (status != EOSFM_OK) return status;
  }
  if (!weights->memory.allocate(file.allocator(), sizes.size())) return error.no_memory(file.file_name());
  Layout layout(weights->memory.data());
  return lay_out(packer, kernels, layout, weights);
}

eosfm_status Specialist::lay_out(Packer& packer, const Kernels& kernels, Layout& layout,
                                 NetworkWeights* weights) const {
  weights->bands = bands;
  for (int s = 0; s < kStages; ++s) {
    StageWeights& stage = weights->stages[s];
    stage.width = widths[s];
    stage.padded = padded_to(widths[s], kernels.lanes);
    if (!stage.blocks.allocate(file.allocator(), depths[s])) return packer.error().no_memory("a specialist");
    eosfm_status status =
        s == 0 ? lay_out_stem(packer, layout, weights) : lay_out_downsample(packer, layout, s, weights);
    for (int b = 0; status == EOSFM_OK && b < depths[s]; ++b) {
      status = lay_out_block(packer, kernels, layout, s, b, &stage);
    }
    if (status != EOSFM_OK) return status;
  }
  return EOSFM_OK;
}

eosfm_status Specialist::lay_out_stem(Packer& packer, Layout& layout, NetworkWeights* weights) const {
  StageWeights& stage = weights->stages[0];
  MatrixSource source;
  Tensor gamma;
  Tensor beta;
  eosfm_status status = packer.read_matrix("stem", "fb", 16 * bands, stage.width, &source);
  if (status == EOSFM_OK) status = packer.read_vector("stem.norm.weight", stage.width, &gamma);
  if (status == EOSFM_OK) status = packer.read_vector("stem.norm.bias", stage.width, &beta);
  if (status != EOSFM_OK) return status;
  weights->stem_gamma = packer.pack_rows(gamma, 1, stage.width, stage.padded, layout);
  weights->stem_beta = packer.pack_rows(beta, 1, stage.width, stage.padded, layout);
  const RowGroup rows = {16 * bands, 16 * bands};
  return packer.pack(source, &rows, 1, packer.storage_of(source.weight.type), layout, &stage.entry);
}

eosfm_status Specialist::lay_out_downsample(Packer& packer, Layout& layout, int s,
                                            NetworkWeights* weights) const {
  const StageWeights& before = weights->stages[s - 1];
  StageWeights& stage = weights->stages[s];
  char name[64];
  snprintf(name, sizeof name, "stages.%d.downsample", s);
  MatrixSource source;
  const eosfm_status status = packer.read_matrix(name, "fbi", 4 * before.width, stage.width, &source);
  if (status != EOSFM_OK) return status;
  const RowGroup corner = {before.width, before.padded};
  const RowGroup rows[4] = {corner, corner, corner, corner};
  return packer.pack(source, rows, 4, packer.storage_of(source.weight.type), layout, &stage.entry);
}

eosfm_status Specialist::lay_out_block(Packer& packer, const Kernels& kernels, Layout& layout, int s, int b,
                                       StageWeights* stage) const {
  char name[64];
  const auto named = [&](const char* part) {
    snprintf(name, sizeof name, "stages.%d.blocks.%d.%s", s, b, part);
    return name;
  };
  const int width = stage->width;
  const int middle = hidden[s][b];
  const int64_t depthwise_shape[] = {49, width};
  Tensor depthwise;
  Tensor bias;
  Tensor grn;
  MatrixSource fc1;
  MatrixSource fc2;
  eosfm_status status =
      file.read_tensor(named("conv_dw.weight"), "f", 2, depthwise_shape, &depthwise, packer.error());
  if (status == EOSFM_OK) status = packer.read_vector(named("conv_dw.bias"), width, &bias);
  if (status == EOSFM_OK) status = packer.read_matrix(named("fc1"), "fbi", width, middle, &fc1);
  if (status == EOSFM_OK) status = packer.read_vector(named("grn.weight"), middle, &grn);
  if (status == EOSFM_OK) status = packer.read_matrix(named("fc2"), "fbi", middle, width, &fc2);
  if (status != EOSFM_OK) return status;

  BlockWeights& block = stage->blocks[b];
  block.hidden = middle;
  block.depthwise = packer.pack_rows(depthwise, 49, width, stage->padded, layout);
  block.depthwise_bias = packer.pack_rows(bias, 1, width, stage->padded, layout);
  block.grn = packer.pack_rows(grn, 1, middle, padded_to(middle, kernels.lanes), layout);
  const RowGroup in = {width, width};
  const RowGroup between = {middle, middle};
  status = packer.pack(fc1, &in, 1, packer.storage_of(fc1.weight.type), layout, &block.fc1);
  if (status != EOSFM_OK) return status;
  status = packer.pack(fc2, &between, 1, packer.storage_of(fc2.weight.type), layout, &block.fc2);
  if (status != EOSFM_OK) return status;
  if (block.fc2.storage == Storage::f32) {
    block.fc2_source = block.fc2;
  } else if (block.fc2.storage == Storage::bf16) {
    status = packer.pack_source(fc2, block.fc2, layout, &block.fc2_source);
  }
  return status;
}

}  // namespace eosfm
