// The kernels, written once over a vector type and the micro-kernels' dot product.
//
// Included once by each instruction set's file, which is compiled for that set: all is in an
// anonymous namespace and nothing of the standard library is used, so that no function compiled for
// one set can be linked into another's.
//
// Packing. Channels are last and padded with zeros to a vector's lanes. A left operand (activations) is rows
// of 32-bit words along k: a float, two bf16 or int16, four bytes. Weights are packed once (packing.cc) into
// panels of up to `panel_vectors` vectors of columns; a panel is [k_words][vectors][lanes] words, so the inner
// loop reads it from front to back and broadcasts each word of a row against it.
//
// Blocking of matmuls. A micro-kernel computes R rows x N vectors of sums in registers over all of k, with
// N vectors of weights and one broadcast value beside them: R is what fits, (registers - N - 1) / N, at most
// 14. for_each_panel goes over panels outside and groups of rows inside, so that a panel comes from memory once
// for all rows. The sums go to a small scratch array, from which scale, bias, GELU and GRN's sums of squares are
// computed vector by vector, without another pass over memory.
// Groups of rows are as equal as possible, since one of a row or two waits for loads.
//
// Blocking of the depthwise convolution. One vector of channels of W neighbouring pixels: each input is loaded
// once for the up to seven outputs that it counts for, beside seven weights of a kernel row. W is 7 with 16
// registers and 14 with 32, and is chosen for a row so that its runs are equally wide.
//
// A vector type `V` has lanes, F (its register), and the operations used below. A dot product `D` has
// Acc (its register of sums), storage, zero(), dot(Acc, word pointer, B) and the like.
#ifndef EOSFM_KERNELS_BODY_H
#define EOSFM_KERNELS_BODY_H

#include "kernels/kernels.h"

namespace eosfm {
namespace {

template <class T>
inline T smaller(T a, T b) {
  return a < b ? a : b;
}

// ---- Activations ------------------------------------------------------------------------------

template <Storage kStorage>
struct Constant {
  static constexpr Storage value = kStorage;
};

// Of integers, `value` is the code, zero point and all, yet to be rounded.
template <class V, Storage kStorage>
inline void store_lanes(void* to, typename V::F value) {
  if constexpr (kStorage == Storage::f32) {
    V::store(static_cast<float*>(to), value);
  } else if constexpr (kStorage == Storage::bf16) {
    V::store_bf16(static_cast<uint16_t*>(to), value);
  } else {
    const typename V::F code = V::min(V::max(value, V::zero()), V::set1(255.0F));
    if constexpr (kStorage == Storage::s16) {
      V::store_s16(static_cast<int16_t*>(to), code);
    } else if constexpr (kStorage == Storage::u8) {
      V::store_bytes(to, code);
    } else {
      V::store_bytes(to, V::sub(code, V::set1(128.0F)));
    }
  }
}

// Calls use(storage) with the storage as a constant, so that inner loops do not branch on it.
template <class Use>
inline void with_constant(Storage storage, const Use& use) {
  switch (storage) {
    case Storage::f32: return use(Constant<Storage::f32>());
    case Storage::bf16: return use(Constant<Storage::bf16>());
    case Storage::s16: return use(Constant<Storage::s16>());
    case Storage::u8: return use(Constant<Storage::u8>());
    case Storage::s8: return use(Constant<Storage::s8>());
  }
}

template <class V, Storage kStorage>
inline typename V::F load_lanes(const void* from) {
  if constexpr (kStorage == Storage::f32) {
    return V::load(static_cast<const float*>(from));
  } else {
    return V::load_bf16(static_cast<const uint16_t*>(from));
  }
}

inline void* element(const Rows& rows, int row, int column) {
  return static_cast<char*>(rows.data) + static_cast<size_t>(row) * rows.stride +
         static_cast<size_t>(column) * element_bytes(rows.storage);
}

inline void zero_rest(const Rows& rows, int row, int from_column) {
  char* at = static_cast<char*>(element(rows, row, from_column));
  char* end = static_cast<char*>(element(rows, row, 0)) + rows.bytes;
  if (at < end) __builtin_memset(at, 0, static_cast<size_t>(end - at));
}

// Converts adjacent stored pixels into physical values. Returns whether all are valid: finite, and none is nodata.
template <class V, class T>
bool read_pixels_of(const T* from, int count, float scale, float offset, float nodata, float* to) {
  using F = typename V::F;
  bool valid = true;
  F zeros = V::zero();  // stays so unless a value is not finite
  for (int i = 0; i < count; i += V::lanes) {
    const F stored = V::load(from + i);
    const F value = V::add(V::mul(stored, V::set1(scale)), V::set1(offset));
    valid = valid && !V::any_equal(stored, V::set1(nodata));
    zeros = V::fma(value, V::zero(), zeros);
    V::store(to + i, value);
  }
  return valid && V::sum(zeros) == 0.0F;
}

template <class V>
bool read_pixels(const void* from, Pixel type, int count, float scale, float offset, float nodata,
                 float* to) {
  switch (type) {
    case Pixel::u8:
      return read_pixels_of<V>(static_cast<const uint8_t*>(from), count, scale, offset, nodata, to);
    case Pixel::u16:
      return read_pixels_of<V>(static_cast<const uint16_t*>(from), count, scale, offset, nodata, to);
    case Pixel::s16:
      return read_pixels_of<V>(static_cast<const int16_t*>(from), count, scale, offset, nodata, to);
    default: return read_pixels_of<V>(static_cast<const float*>(from), count, scale, offset, nodata, to);
  }
}

// ---- Layer normalisation ----------------------------------------------------------------------

// Returns 1 for the lanes of a pixel's last vector that are channels, and 0 for padding.
template <class V>
inline typename V::F last_vector_mask(int channels, int padded_channels) {
  float mask[V::lanes];
  for (int i = 0; i < V::lanes; ++i) {
    mask[i] = padded_channels - V::lanes + i < channels ? 1.0F : 0.0F;
  }
  return V::load(mask);
}

template <class V, Storage kStorage>
void norm_to(const Norm& n) {
  using F = typename V::F;
  constexpr float kEpsilon = 1e-6F;
  const F mask = last_vector_mask<V>(n.channels, n.padded_channels);
  const int last = n.padded_channels - V::lanes;
  const float share = 1.0F / static_cast<float>(n.channels);
  for (int p = 0; p < n.pixels; ++p) {
    const float* x = n.input + static_cast<size_t>(p) * n.stride;
    F sum = V::zero();
    for (int c = 0; c <= last; c += V::lanes) sum = V::add(sum, V::load(x + c));
    const F mean = V::set1(V::sum(sum) * share);
    F squares = V::zero();
    for (int c = 0; c < last; c += V::lanes) {
      const F d = V::sub(V::load(x + c), mean);
      squares = V::fma(d, d, squares);
    }
    const F d = V::mul(V::sub(V::load(x + last), mean), mask);
    squares = V::fma(d, d, squares);
    const F inverse = V::set1(1.0F / __builtin_sqrtf(V::sum(squares) * share + kEpsilon));
    for (int c = 0; c <= last; c += V::lanes) {
      F y = V::mul(V::sub(V::load(x + c), mean), inverse);
      if constexpr (is_integer(kStorage)) {
        y = V::fma(y, V::load(n.gamma + c), V::set1(n.out.zero));
      } else if (n.gamma) {
        y = V::fma(y, V::load(n.gamma + c), V::load(n.beta + c));
      }
      store_lanes<V, kStorage>(element(n.out, p, c), y);
    }
    zero_rest(n.out, p, n.padded_channels);
  }
}

template <class V>
void norm(const Norm& n) {
  with_constant(n.out.storage, [&](auto storage) { norm_to<V, decltype(storage)::value>(n); });
}

// ---- Depthwise convolution --------------------------------------------------------------------

// Computes one vector of channels of W neighbouring pixels of a row. Each input is loaded once for the up to seven
// outputs that it counts for.
template <class V, int W>
void depthwise_block(const float* input, size_t row_stride, size_t pixel_stride, const float* weights,
                     const float* bias, float* out) {
  using F = typename V::F;
  F sums[W];
  const F start = V::load(bias);
  for (int t = 0; t < W; ++t) sums[t] = start;
#pragma GCC unroll 1
  for (int ky = 0; ky < 7; ++ky) {
    F w[7];
#pragma GCC unroll 7
    for (int kx = 0; kx < 7; ++kx) w[kx] = V::load(weights + (7 * ky + kx) * pixel_stride);
#pragma GCC unroll 20
    for (int i = 0; i < W + 6; ++i) {
      const F x = V::load(input + ky * row_stride + i * pixel_stride);
#pragma GCC unroll 7
      for (int kx = 0; kx < 7; ++kx) {
        const int t = i - kx;
        if (t >= 0 && t < W) sums[t] = V::fma(x, w[kx], sums[t]);
      }
    }
  }
  for (int t = 0; t < W; ++t) V::store(out + t * pixel_stride, sums[t]);
}

using DepthwiseRun = void (*)(const float*, size_t, size_t, const float*, const float*, float*);

// Computes a run of w pixels, up to the widest whose sums and weights the registers hold.
template <class V>
DepthwiseRun depthwise_of_width(int w) {
  if constexpr (V::registers >= 32) {
    switch (w) {
      case 14: return depthwise_block<V, 14>;
      case 13: return depthwise_block<V, 13>;
      case 12: return depthwise_block<V, 12>;
      case 11: return depthwise_block<V, 11>;
      case 10: return depthwise_block<V, 10>;
      case 9: return depthwise_block<V, 9>;
      case 8: return depthwise_block<V, 8>;
      default: break;
    }
  }
  switch (w) {
    case 7: return depthwise_block<V, 7>;
    case 6: return depthwise_block<V, 6>;
    case 5: return depthwise_block<V, 5>;
    case 4: return depthwise_block<V, 4>;
    case 3: return depthwise_block<V, 3>;
    case 2: return depthwise_block<V, 2>;
    default: return depthwise_block<V, 1>;
  }
}

template <class V>
void depthwise_norm(const DepthwiseNorm& d) {
  constexpr int kWidest = V::registers >= 32 ? 14 : 7;
  const size_t pixel_stride = static_cast<size_t>(d.padded_channels);
  const int runs = (d.width + kWidest - 1) / kWidest;
  const int w = (d.width + runs - 1) / runs;
  const DepthwiseRun run = depthwise_of_width<V>(w);
  for (int row = 0; row < d.rows; ++row) {
    const float* input = d.input + static_cast<size_t>(row) * d.row_stride;
    for (int c = 0; c < d.padded_channels; c += V::lanes) {
      for (int r = 0; r < runs; ++r) {
        // The last run moves back to end with the row: what it computes again is the same.
        const size_t at = static_cast<size_t>(smaller(r * w, d.width - w)) * pixel_stride + c;
        run(input + at, d.row_stride, pixel_stride, d.weights + c, d.bias + c, d.scratch + at);
      }
    }
    Rows out = d.out;
    out.data = element(d.out, row * d.width, 0);
    norm<V>({d.scratch, pixel_stride, d.width, d.channels, d.padded_channels, d.gamma, nullptr, out});
  }
}

// ---- Matmuls ----------------------------------------------------------------------------------

// out[R][N vectors] = a[R][k_words] * b[k_words][N vectors]
template <class D, int R, int N>
void micro_kernel(const uint32_t* a, size_t a_words, const uint32_t* b, int k_words, float* out) {
  typename D::Acc sums[R][N];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) sums[r][n] = D::zero();
  }
#pragma GCC unroll 1
  for (int k = 0; k < k_words; ++k) {
    typename D::B columns[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) columns[n] = D::load(b + n * D::lanes);
    b += N * D::lanes;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const typename D::A value = D::broadcast(a + r * a_words + k);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) D::dot(sums[r][n], value, columns[n]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) D::store(out + (r * N + n) * D::lanes, sums[r][n]);
  }
}

using MicroKernel = void (*)(const uint32_t*, size_t, const uint32_t*, int, float*);

// Returns the rows for which the sums, the columns and one value fit in the registers.
template <class D, int N>
constexpr int rows_in_registers() {
  constexpr int kMost = 14;
  constexpr int kFit = (D::registers - N - 1) / N;
  return kFit < kMost ? kFit : kMost;
}

template <class D, int N, int R>
MicroKernel micro_kernel_of_rows(int rows) {
  if constexpr (R == 1) {
    return micro_kernel<D, 1, N>;
  } else {
    return rows == R ? micro_kernel<D, R, N> : micro_kernel_of_rows<D, N, R - 1>(rows);
  }
}

// The matmul of one kind of word, panel by panel and group of rows by group of rows.
template <class D>
struct InRegisters {
  static constexpr int lanes = D::lanes;
  static constexpr int panel_vectors = D::registers >= 32 ? 4 : 2;

  struct Session {};  // nothing to set up

  static int most_rows(int vectors) {
    switch (vectors) {
      case 1: return rows_in_registers<D, 1>();
      case 2: return rows_in_registers<D, 2>();
      case 3: return rows_in_registers<D, 3>();
      default: return rows_in_registers<D, 4>();
    }
  }

  static void multiply(const void* a, size_t a_stride, const uint32_t* panel, int vectors, int rows,
                       int k_words, float* out) {
    of(vectors, rows)(static_cast<const uint32_t*>(a), a_stride / 4, panel, k_words, out);
  }

 private:
  static MicroKernel of(int vectors, int rows) {
    switch (vectors) {
      case 1: return micro_kernel_of_rows<D, 1, rows_in_registers<D, 1>()>(rows);
      case 2: return micro_kernel_of_rows<D, 2, rows_in_registers<D, 2>()>(rows);
      case 3:
        if constexpr (panel_vectors >= 3) {
          return micro_kernel_of_rows<D, 3, rows_in_registers<D, 3>()>(rows);
        }
        return nullptr;
      default:
        if constexpr (panel_vectors >= 4) {
          return micro_kernel_of_rows<D, 4, rows_in_registers<D, 4>()>(rows);
        }
        return nullptr;
    }
  }
};

// Calls use(sums, vectors of columns, first column, first row, rows) for each group of rows by a panel.
template <class T, class Use>
inline void for_each_panel(const Matrix& w, const void* a, size_t a_stride, int rows, float* sums,
                           const Use& use) {
  const PanelSplit split(w.vectors, T::panel_vectors);
  const uint32_t* panel = w.words;
  [[maybe_unused]] const typename T::Session session;
  int column = 0;
  for (int p = 0; p < split.count; ++p) {
    const int vectors = split.width(p);
    const int groups = (rows + T::most_rows(vectors) - 1) / T::most_rows(vectors);
    for (int g = 0; g < groups; ++g) {
      const int first = static_cast<int>(static_cast<int64_t>(rows) * g / groups);
      const int after = static_cast<int>(static_cast<int64_t>(rows) * (g + 1) / groups);
      T::multiply(static_cast<const char*>(a) + static_cast<size_t>(first) * a_stride, a_stride, panel,
                  vectors, after - first, w.k_words, sums);
      use(sums, vectors, column, first, after - first);
    }
    panel += static_cast<size_t>(w.k_words) * vectors * T::lanes;
    column += vectors * T::lanes;
  }
}

// Makes results of the sums of one vector of columns: integers are scaled, and the bias added.
template <class V, bool kInteger>
struct Finish {
  typename V::F scale;
  typename V::F bias;

  Finish(const Matrix& w, int column)
      : scale(kInteger ? V::load(w.scale + column) : V::zero()), bias(V::load(w.bias + column)) {}

  typename V::F operator()(const float* sums) const {
    if constexpr (kInteger) {
      return V::fma(V::load_int(reinterpret_cast<const int32_t*>(sums)), scale, bias);
    } else {
      return V::add(V::load(sums), bias);
    }
  }
};

template <class V, class T, bool kInteger>
void linear(const Matrix& w, const void* a, size_t a_stride, int rows, const PixelMap& out, Store store,
            float* sums) {
  using F = typename V::F;
  for_each_panel<T>(w, a, a_stride, rows, sums,
                    [&](const float* from, int vectors, int column, int first, int count) {
    int y = first / out.width;
    int x = first % out.width;
    for (int r = 0; r < count; ++r) {
      float* to = out.base + y * out.row_stride + x * out.pixel_stride + column;
      for (int v = 0; v < vectors; ++v, to += V::lanes, from += V::lanes) {
        F value = Finish<V, kInteger>(w, column + v * V::lanes)(from);
        switch (store) {
          case Store::plain: break;
          case Store::add: value = V::add(value, V::load(to)); break;
          case Store::relu: value = V::max(value, V::zero()); break;
          case Store::leaky_relu: value = V::max(value, V::mul(value, V::set1(0.01F))); break;
        }
        V::store(to, value);
      }
      if (++x == out.width) {
        x = 0;
        ++y;
      }
    }
  });
}

// ---- GELU ---------------------------------------------------------------------------------------

// x * Phi(x), Phi(x) - 1/2 as x * p(x^2) / q(x^2) on |x| <= 5.2: within 2e-7 of it, relative, where
// the coefficients are the weighted least squares fit on Chebyshev nodes, reweighted to minimax.
template <class V>
inline typename V::F gelu(typename V::F x) {
  using F = typename V::F;
  const F c = V::min(V::max(x, V::set1(-5.2F)), V::set1(5.2F));
  const F u = V::mul(c, c);
  F p = V::fma(u, V::set1(-1.4522287e-08F), V::set1(4.7344106e-06F));
  p = V::fma(u, p, V::set1(3.6320838e-04F));
  p = V::fma(u, p, V::set1(5.7856156e-03F));
  p = V::fma(u, p, V::set1(5.5845615e-02F));
  p = V::fma(u, p, V::set1(3.9894220e-01F));
  F q = V::fma(u, V::set1(1.2106983e-04F), V::set1(2.9819026e-03F));
  q = V::fma(u, q, V::set1(4.0618501e-02F));
  q = V::fma(u, q, V::set1(3.0664775e-01F));
  q = V::fma(u, q, V::set1(1.0F));
  return V::mul(x, V::fma(V::mul(c, p), V::reciprocal(q), V::set1(0.5F)));
}

// The same to 1.3e-4, absolute, which is less than what bf16 leaves of it: a polynomial in x^2 on
// |x| <= 4, whose value at the end is 1/2, so that large x pass unchanged.
template <class V>
inline typename V::F gelu_coarse(typename V::F x) {
  using F = typename V::F;
  const F c = V::min(V::max(x, V::set1(-4.0F)), V::set1(4.0F));
  const F u = V::mul(c, c);
  F p = V::fma(u, V::set1(-4.6344731e-10F), V::set1(5.2192377e-08F));
  p = V::fma(u, p, V::set1(-2.3541456e-06F));
  p = V::fma(u, p, V::set1(5.8005822e-05F));
  p = V::fma(u, p, V::set1(-8.8738685e-04F));
  p = V::fma(u, p, V::set1(9.0582427e-03F));
  p = V::fma(u, p, V::set1(-6.5099284e-02F));
  p = V::fma(u, p, V::set1(3.9820904e-01F));
  return V::mul(x, V::fma(c, p, V::set1(0.5F)));
}

template <class V, class T, bool kInteger, bool kFloatOut>
void linear_gelu_to(const Matrix& w, const void* a, size_t a_stride, int rows, const Rows& out,
                    float* squares, float* sums) {
  using F = typename V::F;
  for_each_panel<T>(w, a, a_stride, rows, sums,
                    [&](const float* from, int vectors, int column, int first, int count) {
    for (int v = 0; v < vectors; ++v) {
      const int at = column + v * V::lanes;
      const Finish<V, kInteger> finish(w, at);
      F total = V::load(squares + at);
      for (int r = 0; r < count; ++r) {
        const F x = finish(from + (r * vectors + v) * V::lanes);
        F h;
        if constexpr (kFloatOut) {
          h = gelu<V>(x);
          V::store(static_cast<float*>(element(out, first + r, at)), h);
        } else {
          h = gelu_coarse<V>(x);
          V::store_bf16(static_cast<uint16_t*>(element(out, first + r, at)), h);
        }
        total = V::fma(h, h, total);
      }
      V::store(squares + at, total);
    }
  });
  for (int r = 0; r < rows; ++r) zero_rest(out, r, w.vectors * V::lanes);
}

template <class V, class T, bool kInteger>
void linear_gelu(const Matrix& w, const void* a, size_t a_stride, int rows, const Rows& out, float* squares,
                 float* sums) {
  if (out.storage == Storage::f32) {
    linear_gelu_to<V, T, kInteger, true>(w, a, a_stride, rows, out, squares, sums);
  } else {
    linear_gelu_to<V, T, kInteger, false>(w, a, a_stride, rows, out, squares, sums);
  }
}

// ---- Scaling ----------------------------------------------------------------------------------

template <class V>
void scale_matrix_panels(const Matrix& source, const float* scales, const Matrix& target, int first_word,
                         int last_word, int panel_vectors) {
  const PanelSplit split(source.vectors, panel_vectors);
  size_t from = 0;
  size_t to = 0;
  for (int p = 0; p < split.count; ++p) {
    const size_t columns = static_cast<size_t>(split.width(p)) * V::lanes;
    for (int k = first_word; k < last_word; ++k) {
      uint32_t* out = target.words + to + k * columns;
      if (target.storage == Storage::f32) {
        const float* in = reinterpret_cast<const float*>(source.words) + from + k * columns;
        const typename V::F s = V::set1(scales[k]);
        for (size_t c = 0; c < columns; c += V::lanes) {
          V::store(reinterpret_cast<float*>(out) + c, V::mul(V::load(in + c), s));
        }
      } else {
        const float* in = reinterpret_cast<const float*>(source.words) + from + 2 * k * columns;
        const typename V::F low = V::set1(scales[2 * k]);
        const typename V::F high = V::set1(scales[2 * k + 1]);
        for (size_t c = 0; c < columns; c += V::lanes) {
          V::store_bf16_pairs(out + c, V::mul(V::load(in + c), low), V::mul(V::load(in + columns + c), high));
        }
      }
    }
    from += static_cast<size_t>(source.k_words) * columns;
    to += static_cast<size_t>(target.k_words) * columns;
  }
}

template <class V, Storage kIn, Storage kOut>
void scale_rows_to(const void* in, size_t in_stride, int rows, int columns, const float* scales,
                   const float* shifts, const Rows& out) {
  for (int r = 0; r < rows; ++r) {
    const char* from = static_cast<const char*>(in) + static_cast<size_t>(r) * in_stride;
    for (int c = 0; c < columns; c += V::lanes) {
      typename V::F x = load_lanes<V, kIn>(from + c * element_bytes(kIn));
      if constexpr (is_integer(kOut)) {
        x = V::fma(x, V::load(scales + c), V::set1(out.zero));
      } else {
        if (scales) x = V::mul(x, V::load(scales + c));
        if (shifts) x = V::add(x, V::load(shifts + c));
      }
      store_lanes<V, kOut>(element(out, r, c), x);
    }
    zero_rest(out, r, columns);
  }
}

template <class V>
void scale_rows(const void* in, size_t in_stride, Storage in_storage, int rows, int columns,
                const float* scales, const float* shifts, const Rows& out) {
  with_constant(out.storage, [&](auto storage) {
    constexpr Storage kOut = decltype(storage)::value;
    if (in_storage == Storage::f32) {
      scale_rows_to<V, Storage::f32, kOut>(in, in_stride, rows, columns, scales, shifts, out);
    } else {
      scale_rows_to<V, Storage::bf16, kOut>(in, in_stride, rows, columns, scales, shifts, out);
    }
  });
}

// ---- The table --------------------------------------------------------------------------------

// The kernels of an instruction set: a vector type, and how the three kinds of matmul are computed.
template <class V, class Float, class Bf16, class Integer>
struct Isa {
  static void linear_any(const Matrix& w, const void* a, size_t a_stride, int rows, const PixelMap& out,
                         Store store, float* sums) {
    if (w.storage == Storage::f32) {
      linear<V, Float, false>(w, a, a_stride, rows, out, store, sums);
    } else if (w.storage == Storage::bf16) {
      linear<V, Bf16, false>(w, a, a_stride, rows, out, store, sums);
    } else {
      linear<V, Integer, true>(w, a, a_stride, rows, out, store, sums);
    }
  }

  static void linear_gelu_any(const Matrix& w, const void* a, size_t a_stride, int rows, const Rows& out,
                              float* squares, float* sums) {
    if (w.storage == Storage::f32) {
      linear_gelu<V, Float, false>(w, a, a_stride, rows, out, squares, sums);
    } else if (w.storage == Storage::bf16) {
      linear_gelu<V, Bf16, false>(w, a, a_stride, rows, out, squares, sums);
    } else {
      linear_gelu<V, Integer, true>(w, a, a_stride, rows, out, squares, sums);
    }
  }

  static void scale_matrix(const Matrix& source, const float* scales, const Matrix& target, int first_word,
                           int last_word) {
    scale_matrix_panels<V>(source, scales, target, first_word, last_word, Float::panel_vectors);
  }

  static constexpr Kernels table(const char* name, Storage integer, bool native_bf16, int k_word_multiple) {
    return {name,         V::lanes,    Float::panel_vectors, k_word_multiple,
            integer,      native_bf16, read_pixels<V>,       depthwise_norm<V>,
            norm<V>,      linear_any,  linear_gelu_any,      scale_matrix,
            scale_rows<V>};
  }
};

}  // namespace
}  // namespace eosfm

#endif
