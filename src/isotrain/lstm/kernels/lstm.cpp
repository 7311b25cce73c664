// One LSTM layer on a CPU, forward and backward, in fp32 or bf16 with fp32 accumulation.
//
// Legend
//   T steps, B batch, I inputs, H hidden units as the user numbers them
//   P places: the units in the order in which they lie in memory, active ones first, padded with empty places so
//     that a run of active and one of isolated units each fill whole blocks. order[p] = unit, or -1 (empty)
//   block: LANES = 16 neighbouring places. panel: the 64 gate columns of a block, [i16 f16 g16 o16]
//   K columns of a row of the recurrence, [h: P | x: I | 1 | 0...], so that one product serves W_hh, W_ih and bias
//   rows     (T+1, B, K)  rows[t] = [h(t-1), x(t), 1]
//   gates    (T, B, 4P+)  activated gates, panel after panel; the backward overwrites them by their gradients
//   cells    (T+1, B, P)  fp32, cells[t] = c(t-1)
//   forward panels   (P/16, K, 64)      weights of a panel; bf16 in pairs of rows (K/2, 64, 2), as brgemm wants them
//   backward panels  (n, 4P, 64)        the same weights the other way: columns 64n.. of [h: P' | x: I]
//
// The batch is shared out over the threads once; no thread waits for another before the end. An isolated zone is a
// run of blocks at the end of the places, so that leaving it out is a shorter loop. Empty places have no weights:
// their h and c stay 0 and so do their gradients.
//
// The registered operators check all that they are given (section "checks"), so that a wrong call from Python is an
// error and never reads or writes past the end of a tensor.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/native/CPUBlas.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <type_traits>
#include <vector>

#if defined(__SSE__)
#include <immintrin.h>
#endif

namespace {

using at::BFloat16;
using at::Tensor;
using at::vec::Vectorized;
using Vec = Vectorized<float>;
using std::optional;

constexpr int64_t LANES = 16;           // units in a block
constexpr int64_t PANEL = 4 * LANES;    // gate columns in a panel
constexpr int64_t COLUMNS = 64;         // columns of a backward panel
static_assert(LANES % Vec::size() == 0, "a block is a whole number of vectors");

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Denormals are flushed while a thread works here, whatever the caller has set.
class FlushDenormals {
#if defined(__SSE__)
  unsigned before = _mm_getcsr();
 public:
  FlushDenormals() { _mm_setcsr(before | 0x8040); }  // FTZ | DAZ
  ~FlushDenormals() { _mm_setcsr(before); }
#elif defined(__aarch64__)
  uint64_t before;
 public:
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(before));
    asm volatile("msr fpcr, %0" ::"r"(before | (1ull << 24)));  // FZ
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(before)); }
#endif
};

// ---- lanes -------------------------------------------------------------------------------------------------------

Vec load(const float* p) { return Vec::loadu(p); }
Vec load(const BFloat16* p) {
  Vec v;
  at::vec::load_fp32_from_bf16(p, v);
  return v;
}
void store(float* p, Vec v) { v.store(p); }
#if defined(__AVX512BF16__) && defined(CPU_CAPABILITY_AVX512)
// at::vec rounds by integer arithmetic; the instruction takes a tenth off the whole forward
void store(BFloat16* p, Vec v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
}
#else
void store(BFloat16* p, Vec v) { at::vec::convert_from_float<BFloat16>(v, v).store(p, Vec::size()); }
#endif

// at::vec's exp_u20 makes a number of NaN. Here are its polynomial and its accuracy in fewer instructions, NaN kept.
#if defined(CPU_CAPABILITY_AVX512)
Vec exp(Vec v) {
  const auto all = [](float a) { return _mm512_set1_ps(a); };
  const __m512 x = _mm512_max_ps(all(-88.f), _mm512_min_ps(all(88.f), v));  // if v is NaN these answer v
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, all(1.442695041f)), _MM_FROUND_TO_NEAREST_INT);
  const __m512 r = _mm512_fnmadd_ps(n, all(0.6931471806f), x);  // exp(x) = 2^n exp(r)
  __m512 p = _mm512_fmadd_ps(r, all(0.00828929059f), all(0.0418978221f));
  p = _mm512_fmadd_ps(r, p, all(0.166676521f));
  p = _mm512_fmadd_ps(r, p, all(0.499991506f));
  p = _mm512_fmadd_ps(r, p, all(0.999999701f));
  return _mm512_scalef_ps(_mm512_fmadd_ps(r, p, all(1.f)), n);
}
#else
Vec exp(Vec x) { return Vec::blendv(x.exp_u20(), x, x.isnan()); }
#endif

// Absolute errors of a few 1e-7, which is what a state needs.
Vec one() { return Vec(1.f); }
Vec sigmoid(Vec x) { return one() / (one() + exp(x.neg())); }
Vec tanh(Vec x) { return Vec(2.f) / (one() + exp(x * Vec(-2.f))) - one(); }

// Where the units of a block lie in the user's numbering: a run (the common case), or scattered.
struct Block {
  const int64_t* order;
  int64_t first = -1, count = 0;  // first < 0: scattered
  int64_t filled = 0;             // empty places come last
  bool whole = false;             // a run without empty places

  explicit Block(const int64_t* order) : order(order) {
    while (count < LANES && order[count] >= 0 && order[count] == order[0] + count) count++;
    if (std::all_of(order + count, order + LANES, [](int64_t u) { return u < 0; })) first = count ? order[0] : 0;
    while (filled < LANES && order[filled] >= 0) filled++;
    whole = count == LANES;
  }

  void scatter(const float* from, float* to) const {
    if (first >= 0) std::copy(from, from + count, to + first);
    else for (int64_t l = 0; l < LANES; l++) if (order[l] >= 0) to[order[l]] = from[l];
  }
  void gather(const float* from, float* to) const {
    if (first >= 0) {
      std::copy(from + first, from + first + count, to);
      std::fill(to + count, to + LANES, 0.f);
    } else for (int64_t l = 0; l < LANES; l++) to[l] = order[l] < 0 ? 0.f : from[order[l]];
  }
};

std::vector<Block> blocks_of(const Tensor& order) {
  std::vector<Block> blocks;
  for (int64_t p = 0; p < order.numel(); p += LANES) blocks.emplace_back(order.const_data_ptr<int64_t>() + p);
  return blocks;
}

// ---- products ----------------------------------------------------------------------------------------------------

// C (m, n) = A (m, k) B (k, n), row-major. bf16 has B in pairs of rows and exists with brgemm only.
void product(bool, int64_t m, int64_t n, int64_t k, const BFloat16* a, int64_t lda, const BFloat16* b, int64_t ldb,
             float* c, int64_t ldc) {
  at::native::cpublas::brgemm(m, n, k, lda, ldb, ldc, false, a, b, c, true);
}
void product(bool brgemm, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
             float* c, int64_t ldc) {
  if (brgemm) return at::native::cpublas::brgemm(m, n, k, lda, ldb, ldc, false, a, b, c, false);
  const auto view = [](const float* data, int64_t rows, int64_t columns, int64_t stride) {
    return at::from_blob(const_cast<float*>(data), {rows, columns}, {stride, 1}, at::kFloat);
  };
  Tensor out = view(c, m, n, ldc);
  at::mm_out(out, view(a, m, k, lda), view(b, k, n, ldb));
}

template <typename S>
bool try_brgemm() {
  std::vector<S> a(16 * 16, S(1.f)), b(16 * 64, S(1.f));
  std::vector<float> c(16 * 64);
  try {
    product(true, 16, 64, 16, a.data(), 16, b.data(), 64, c.data(), 64);
    at::native::cpublas::brgemm_release(std::is_same_v<S, BFloat16>);
  } catch (const std::exception&) {  // torch's, or oneDNN's where the environment limits what it may use
    return false;
  }
  return c[0] == 16.f;
}

bool has_brgemm(bool bf16) {
  static const bool whole = try_brgemm<float>(), half = try_brgemm<BFloat16>();  // tried once
  return bf16 ? half : whole;
}

// One contiguous part of the batch for each thread.
template <typename F>
void share_batch(int64_t batch, bool brgemm, bool bf16, const F& work) {
  if (batch == 0) return;
  const int64_t parts = std::min<int64_t>(at::get_num_threads(), batch), each = ceil_div(batch, parts);
  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    FlushDenormals flush;
    for (int64_t q = begin; q < end; q++)
      if (q * each < batch) work(q * each, std::min(each, batch - q * each));
    if (brgemm) at::native::cpublas::brgemm_release(bf16);
  });
}

// ---- checks ------------------------------------------------------------------------------------------------------

void check_dense(const char* name, const Tensor& t) {
  TORCH_CHECK(t.defined() && t.device().is_cpu() && t.layout() == at::kStrided && !t.is_neg(), name,
              " must be a dense tensor on the CPU");
}

// A tensor of this type and these sizes, without gaps.
void check(const char* name, const Tensor& t, at::ScalarType type, at::IntArrayRef sizes) {
  check_dense(name, t);
  TORCH_CHECK(t.scalar_type() == type, name, " is ", t.scalar_type(), ", must be ", type);
  TORCH_CHECK(t.sizes() == sizes, name, " has sizes ", t.sizes(), ", must have ", sizes);
  TORCH_CHECK(t.is_contiguous(), name, " must be contiguous");
}
void check(const char* name, const optional<Tensor>& t, at::ScalarType type, at::IntArrayRef sizes) {
  if (t) check(name, *t, type, sizes);
}

// A batch-by-time tensor (steps, batch, width) of floats, whose rows lie anywhere, each without gaps.
void check_rows(const char* name, const Tensor& t, int64_t steps, int64_t batch, int64_t width) {
  check_dense(name, t);
  TORCH_CHECK(t.scalar_type() == at::kFloat, name, " is ", t.scalar_type(), ", must be ", at::kFloat);
  TORCH_CHECK(t.dim() == 3 && t.size(0) == steps && t.size(1) == batch && t.size(2) == width, name, " has sizes ",
              t.sizes(), ", must have [", steps, ", ", batch, ", ", width, "]");
  TORCH_CHECK(t.stride(2) == 1 || width <= 1, name, " must have neighbouring columns side by side");
}

void check_range(const char* name, int64_t value, int64_t low, int64_t high) {
  TORCH_CHECK(low <= value && value <= high, name, " is ", value, ", must be from ", low, " to ", high);
}

// Each of the units 0..hidden-1 in one place of whole blocks, the empty places at the end of their block.
void check_order(const Tensor& order, int64_t hidden) {
  TORCH_CHECK(order.dim() == 1 && order.numel() % LANES == 0, "order must be one row of whole blocks of ", LANES,
              " places, has sizes ", order.sizes());
  check("order", order, at::kLong, {order.numel()});
  const int64_t* unit = order.const_data_ptr<int64_t>();
  std::vector<bool> placed(hidden);
  int64_t count = 0;
  for (int64_t p = 0; p < order.numel(); p++) {
    TORCH_CHECK(-1 <= unit[p] && unit[p] < hidden, "order has unit ", unit[p], " in place ", p, ", units are 0 to ",
                hidden - 1, " and an empty place is -1");
    TORCH_CHECK(unit[p] < 0 || p % LANES == 0 || unit[p - 1] >= 0, "order has unit ", unit[p],
                " behind an empty place of its block");
    if (unit[p] < 0) continue;
    TORCH_CHECK(!placed[unit[p]], "order has unit ", unit[p], " twice");
    placed[unit[p]] = true;
    count++;
  }
  TORCH_CHECK(count == hidden, "order has ", count, " of ", hidden, " units");
}

// The weights, and the number of hidden units that they are for.
int64_t check_weights(const Tensor& w_ih, const Tensor& w_hh, const Tensor& order) {
  TORCH_CHECK(w_ih.defined() && w_hh.defined() && w_ih.dim() == 2 && w_hh.dim() == 2, "w_ih and w_hh must be matrices");
  const int64_t H = w_hh.size(1);
  check("w_hh", w_hh, at::kFloat, {4 * H, H});
  check("w_ih", w_ih, at::kFloat, {4 * H, w_ih.size(1)});
  check_order(order, H);
  return H;
}

// What the kernels read (float or bf16) as panels of that many rows.
void check_panels(const Tensor& panels, int64_t count, int64_t rows, int64_t columns, bool brgemm) {
  const bool bf16 = panels.defined() && panels.scalar_type() == at::kBFloat16;
  check("panels", panels, bf16 ? at::kBFloat16 : at::kFloat, {count, rows, columns});
  TORCH_CHECK(!bf16 || rows % 2 == 0, "panels in bf16 have an even number of rows, not ", rows);
  TORCH_CHECK(!brgemm || has_brgemm(bf16), "brgemm must be false: this processor has no such products");
  TORCH_CHECK(!bf16 || brgemm, "panels in bf16 need brgemm, which this processor may not have: see has_brgemm");
}

// ---- weights into panels -----------------------------------------------------------------------------------------

// Where element (row, column) of a panel of `rows` rows lies: bf16 in pairs of rows.
template <typename S>
int64_t place(int64_t panel, int64_t row, int64_t column, int64_t rows) {
  if constexpr (std::is_same_v<S, BFloat16>)
    return (panel * rows + (row & ~int64_t{1})) * COLUMNS + column * 2 + (row & 1);
  return (panel * rows + row) * COLUMNS + column;
}

struct Weights {
  const float *ih, *hh, *bias_ih, *bias_hh;  // (4H, I), (4H, H), (4H), (4H) or null
  int64_t I, H;
  Weights(const Tensor& w_ih, const Tensor& w_hh, const optional<Tensor>& b_ih, const optional<Tensor>& b_hh)
      : ih(w_ih.const_data_ptr<float>()), hh(w_hh.const_data_ptr<float>()),
        bias_ih(b_ih ? b_ih->const_data_ptr<float>() : nullptr), bias_hh(b_hh ? b_hh->const_data_ptr<float>() : nullptr),
        I(w_ih.size(1)), H(w_hh.size(1)) {}
};

template <typename S>
Tensor pack_forward_as(const Weights& w, const Tensor& order, int64_t K) {
  const int64_t P = order.numel();
  const int64_t* unit = order.const_data_ptr<int64_t>();
  Tensor panels = at::zeros({P / LANES, K, PANEL}, at::CppTypeToScalarType<S>::value);
  S* out = panels.data_ptr<S>();
  at::parallel_for(0, P * 4, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {  // r: a gate of a place
      const int64_t p = r / 4, gate = r % 4, panel = p / LANES, column = gate * LANES + p % LANES;
      if (unit[p] < 0) continue;
      const int64_t row = gate * w.H + unit[p];
      for (int64_t k = 0; k < P; k++)
        if (unit[k] >= 0) out[place<S>(panel, k, column, K)] = S(w.hh[row * w.H + unit[k]]);
      for (int64_t k = 0; k < w.I; k++) out[place<S>(panel, P + k, column, K)] = S(w.ih[row * w.I + k]);
      if (w.bias_ih) out[place<S>(panel, P + w.I, column, K)] = S(w.bias_ih[row] + w.bias_hh[row]);
    }
  });
  return panels;
}

// Columns: places 0..columns of h first (whole panels), then the first `inputs` of x.
template <typename S>
Tensor pack_backward_as(const Weights& w, const Tensor& order, int64_t columns, int64_t inputs) {
  const int64_t P = order.numel(), h_panels = ceil_div(columns, COLUMNS), panels = h_panels + ceil_div(inputs, COLUMNS);
  const int64_t* unit = order.const_data_ptr<int64_t>();
  Tensor packed = at::zeros({panels, 4 * P, COLUMNS}, at::CppTypeToScalarType<S>::value);
  S* out = packed.data_ptr<S>();
  at::parallel_for(0, P * 4, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const int64_t p = r / 4, gate = r % 4, packed_row = (p / LANES) * PANEL + gate * LANES + p % LANES;
      if (unit[p] < 0) continue;
      const int64_t row = gate * w.H + unit[p];
      for (int64_t k = 0; k < columns; k++)
        if (unit[k] >= 0) out[place<S>(k / COLUMNS, packed_row, k % COLUMNS, 4 * P)] = S(w.hh[row * w.H + unit[k]]);
      for (int64_t k = 0; k < inputs; k++)
        out[place<S>(h_panels + k / COLUMNS, packed_row, k % COLUMNS, 4 * P)] = S(w.ih[row * w.I + k]);
    }
  });
  return packed;
}

Tensor pack_forward(const Tensor& w_ih, const Tensor& w_hh, const optional<Tensor>& b_ih, const optional<Tensor>& b_hh,
                    const Tensor& order, int64_t K, bool bf16) {
  const int64_t H = check_weights(w_ih, w_hh, order);
  TORCH_CHECK(b_ih.has_value() == b_hh.has_value(), "b_ih and b_hh must both be given, or neither");
  check("b_ih", b_ih, at::kFloat, {4 * H});
  check("b_hh", b_hh, at::kFloat, {4 * H});
  TORCH_CHECK(K > order.numel() + w_ih.size(1) && K % 2 == 0, "K is ", K, ", must be even and at least ",
              order.numel() + w_ih.size(1) + 1);
  const Weights w(w_ih, w_hh, b_ih, b_hh);
  return bf16 ? pack_forward_as<BFloat16>(w, order, K) : pack_forward_as<float>(w, order, K);
}

Tensor pack_backward(const Tensor& w_ih, const Tensor& w_hh, const Tensor& order, int64_t columns, int64_t inputs,
                     bool bf16) {
  check_weights(w_ih, w_hh, order);
  check_range("columns", columns, 0, order.numel());
  check_range("inputs", inputs, 0, w_ih.size(1));
  const Weights w(w_ih, w_hh, std::nullopt, std::nullopt);
  return bf16 ? pack_backward_as<BFloat16>(w, order, columns, inputs)
              : pack_backward_as<float>(w, order, columns, inputs);
}

// ---- forward -----------------------------------------------------------------------------------------------------

// A batch-by-time view of floats: row (t, b) starts at data + t * step + b * sample.
struct Rows {
  float* data = nullptr;
  int64_t step = 0, sample = 0, width = 0;
  Rows() = default;
  explicit Rows(const Tensor& x)
      : data(x.numel() ? x.data_ptr<float>() : nullptr), step(x.stride(0)), sample(x.stride(1)), width(x.size(2)) {}
  float* at(int64_t t, int64_t b) const { return data + t * step + b * sample; }
};

template <typename S>
void fill(S* to, const float* from, int64_t n) {
  int64_t k = 0;
  for (; k + Vec::size() <= n; k += Vec::size()) store(to + k, load(from + k));
  for (; k < n; k++) to[k] = S(from[k]);
}

template <typename S>
void forward_as(const std::vector<Rows>& inputs, const Tensor& h0, const Tensor& c0, const Tensor& panels,
                const std::vector<Block>& blocks, const Tensor& rows, const optional<Tensor>& gates,
                const Tensor& cells, const Rows& y, int64_t T, bool brgemm) {
  const int64_t B = rows.size(1), K = rows.size(2), P = cells.size(2), H = h0.size(1);
  const int64_t ldg = gates ? gates->size(2) : 0;
  const bool keep = gates.has_value(), keep_cells = cells.size(0) > 1;  // else one row of cells serves all steps
  const int64_t slots = rows.size(0);  // all steps and one more, or two in turn
  const S* weights = panels.const_data_ptr<S>();
  S *row_data = rows.data_ptr<S>(), *gate_data = keep ? gates->data_ptr<S>() : nullptr;
  float* cell_data = cells.data_ptr<float>();
  const float *h_first = h0.const_data_ptr<float>(), *c_first = c0.const_data_ptr<float>();

  share_batch(B, brgemm, std::is_same_v<S, BFloat16>, [&](int64_t b0, int64_t n) {
    std::vector<float> product_buffer(n * PANEL);
    float *z = product_buffer.data(), h[LANES];
    for (int64_t b = b0; b < b0 + n; b++)
      for (size_t j = 0; j < blocks.size(); j++) {
        blocks[j].gather(c_first + b * H, cell_data + b * P + j * LANES);
        blocks[j].gather(h_first + b * H, h);
        fill(row_data + b * K + j * LANES, h, LANES);
      }
    for (int64_t t = 0; t < T; t++) {
      S* row = row_data + ((t % slots) * B + b0) * K;
      S* row_after = row_data + (((t + 1) % slots) * B + b0) * K;
      for (int64_t b = 0; b < n; b++) {
        S* to = row + b * K + P;
        for (const Rows& x : inputs) {
          fill(to, x.at(t, b0 + b), x.width);
          to += x.width;
        }
        *to++ = S(1.f);
        std::fill(to, row + (b + 1) * K, S(0.f));
      }
      const float* c_before = cell_data + ((keep_cells ? t : 0) * B + b0) * P;
      float* c_after = cell_data + ((keep_cells ? t + 1 : 0) * B + b0) * P;
      for (size_t j = 0; j < blocks.size(); j++) {
        product(brgemm, n, PANEL, K, row, K, weights + j * K * PANEL, PANEL, z, PANEL);
        if (blocks[j].filled < LANES)  // an infinite x times no weight is not 0
          for (int64_t g = 0; g < 4 * n; g++) std::fill(z + g * LANES + blocks[j].filled, z + (g + 1) * LANES, 0.f);
        for (int64_t b = 0; b < n; b++) {
          float* out = blocks[j].whole ? y.at(t, b0 + b) + blocks[j].first : h;
          for (int64_t l = 0; l < LANES; l += Vec::size()) {
            const float* zb = z + b * PANEL + l;
            const int64_t place = b * P + j * LANES + l;
            const Vec i = sigmoid(load(zb)), f = sigmoid(load(zb + LANES)), g = tanh(load(zb + 2 * LANES)),
                      o = sigmoid(load(zb + 3 * LANES));
            const Vec c = at::vec::fmadd(f, load(c_before + place), i * g), state = o * tanh(c);
            store(c_after + place, c);
            store(row_after + b * K + j * LANES + l, state);
            store(out + l, state);
            if (keep) {
              S* to = gate_data + (t * B + b0 + b) * ldg + j * PANEL + l;
              store(to, i), store(to + LANES, f), store(to + 2 * LANES, g), store(to + 3 * LANES, o);
            }
          }
          if (!blocks[j].whole) blocks[j].scatter(h, y.at(t, b0 + b));
        }
      }
    }
  });
}

// inputs: any number of (T, B, I_n) fp32 with unit last stride, side by side the x of the layer.
// Returns y (T, B, H; laid out batch first if asked), h_T, c_T, and what the backward needs: rows, gates, cells
// (kept: 0: nothing; 1: the cells (T + 1, B, P), before the first step and after each; 2: all; else empty).
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> forward(
    at::TensorList inputs, const Tensor& h0, const Tensor& c0, const Tensor& panels, const Tensor& order, int64_t kept,
    bool batch_first, bool brgemm) {
  check_range("kept", kept, 0, 2);
  const bool keep = kept == 2;
  TORCH_CHECK(!inputs.empty() && inputs[0].dim() == 3, "inputs must be at least one tensor (steps, batch, inputs)");
  TORCH_CHECK(h0.dim() == 2 && panels.dim() == 3, "h0 must be (batch, hidden) and panels (blocks, rows, ", PANEL, ")");
  const int64_t T = inputs[0].size(0), B = inputs[0].size(1), P = order.numel(), K = panels.size(1), H = h0.size(1);
  int64_t seen = 0;
  for (const Tensor& x : inputs) {
    TORCH_CHECK(x.dim() == 3, "inputs must all be (steps, batch, inputs)");
    check_rows("inputs", x, T, B, x.size(2));
    seen += x.size(2);
  }
  check("h0", h0, at::kFloat, {B, H});
  check("c0", c0, at::kFloat, {B, H});
  check_order(order, H);
  check_panels(panels, P / LANES, K, PANEL, brgemm);
  TORCH_CHECK(K > P + seen, "panels have ", K, " rows, must have at least ", P + seen + 1, " for these inputs");
  std::vector<Rows> xs(inputs.begin(), inputs.end());
  const auto plain = h0.options();
  Tensor y = batch_first ? at::empty({B, T, H}, plain).transpose(0, 1) : at::empty({T, B, H}, plain);
  Tensor rows = at::empty({keep ? T + 1 : 2, B, K}, panels.options());
  // rows of a power of two bytes would fall into the same cache sets
  optional<Tensor> gates = keep ? optional(at::empty({T, B, 4 * P + 32}, panels.options())) : std::nullopt;
  Tensor cells = at::empty({kept > 0 ? T + 1 : 1, B, P}, plain);
  const auto blocks = blocks_of(order);
  if (panels.scalar_type() == at::kBFloat16)
    forward_as<BFloat16>(xs, h0, c0, panels, blocks, rows, gates, cells, Rows(y), T, brgemm);
  else
    forward_as<float>(xs, h0, c0, panels, blocks, rows, gates, cells, Rows(y), T, brgemm);
  Tensor h_last = T ? y.select(0, T - 1).clone(at::MemoryFormat::Contiguous) : h0.clone();
  Tensor c_last = at::empty({B, H}, plain);
  const float* from = cells.const_data_ptr<float>() + (kept > 0 ? T : 0) * B * P;
  for (int64_t b = 0; b < B; b++)
    for (size_t j = 0; j < blocks.size(); j++)
      blocks[j].scatter(from + b * P + j * LANES, c_last.data_ptr<float>() + b * H);
  Tensor none = at::empty({0}, plain);
  return {y, h_last, c_last, keep ? rows : none, keep ? *gates : none, kept > 0 ? cells : none};
}

// ---- backward ----------------------------------------------------------------------------------------------------

// Gate gradients of one block of one sample, in place of its gates. dc: gradient of the cell, carried along if `cell`.
template <typename S>
void gate_gradients(S* gates, const float* c_before, const float* c_after, const float* dh, const float* dy, float* dc,
                    bool cell) {
  for (int64_t l = 0; l < LANES; l += Vec::size()) {
    S* at = gates + l;
    const Vec i = load(at), f = load(at + LANES), g = load(at + 2 * LANES), o = load(at + 3 * LANES);
    const Vec tc = tanh(load(c_after + l));
    Vec d = load(dh + l);
    if (dy) d = d + load(dy + l);
    const Vec dcell = at::vec::fmadd(d * o, one() - tc * tc, load(dc + l));
    store(at, dcell * g * i * (one() - i));
    store(at + LANES, dcell * load(c_before + l) * f * (one() - f));
    store(at + 2 * LANES, dcell * i * (one() - g * g));
    store(at + 3 * LANES, d * tc * o * (one() - o));
    store(dc + l, cell ? dcell * f : Vec(0.f));
  }
}

// What a step sends to the one before: through the recurrent weights to some places (of each panel the first so many
// columns are computed, and those of other places dropped), and along the cell or not.
struct Credit {
  const bool* passing = nullptr;  // (P), null: all
  std::vector<int64_t> columns;   // a panel of h
  bool cell = true;

  Credit(const optional<Tensor>& passing, int64_t h_panels, bool cell)
      : passing(passing ? passing->const_data_ptr<bool>() : nullptr), columns(h_panels, COLUMNS), cell(cell) {
    if (!passing) return;
    std::fill(columns.begin(), columns.end(), 0);
    for (int64_t p = 0; p < passing->numel(); p++)
      if (this->passing[p]) columns[p / COLUMNS] = p % COLUMNS + 1;
  }
};

struct Backward {
  const Tensor &gates, &cells, &panels;  // panels: those of pack_backward
  std::vector<Block> blocks;
  Rows dy, dx;                // dy.data, dx.data may be null
  float *dh, *dc;             // (B, P): in the gradients of the last states, out those of the first
  int64_t first_step;         // gate gradients exist from this step on
  int64_t places;             // the first so many take part; the others are cut
  Credit credit;
};

template <typename S>
void backward_as(const Backward& w, bool brgemm) {
  const int64_t T = w.gates.size(0), B = w.gates.size(1), ldg = w.gates.size(2), P = w.cells.size(2);
  const int64_t packed_rows = w.panels.size(1), panels = w.panels.size(0), inputs = w.dx.data ? w.dx.width : 0;
  const int64_t h_panels = panels - ceil_div(inputs, COLUMNS);
  const S* weights = w.panels.const_data_ptr<S>();
  S* gates = w.gates.data_ptr<S>();
  const float* cells = w.cells.const_data_ptr<float>();

  share_batch(B, brgemm && panels > 0, std::is_same_v<S, BFloat16>, [&](int64_t b0, int64_t n) {
    const int64_t places = w.places, ldh = h_panels * COLUMNS;  // whole panels: the last may reach beyond P
    const int64_t wide = std::max(ldh, P);
    const Credit& credit = w.credit;
    std::vector<float> dh_buffer(n * wide);
    float *dh = dh_buffer.data(), dy_block[LANES];
    for (int64_t b = 0; b < n; b++) std::copy(w.dh + (b0 + b) * P, w.dh + (b0 + b + 1) * P, dh + b * wide);
    for (int64_t t = T - 1; t >= w.first_step; t--) {
      S* at_t = gates + (t * B + b0) * ldg;
      for (int64_t b = 0; b < n; b++) {
        const float *c_before = cells + (t * B + b0 + b) * P, *c_after = c_before + B * P;
        for (int64_t p = 0; p < places; p += LANES) {
          const float* dy = nullptr;
          if (w.dy.data) {
            const Block& block = w.blocks[p / LANES];
            if (block.whole) dy = w.dy.at(t, b0 + b) + block.first;
            else block.gather(w.dy.at(t, b0 + b), dy_block), dy = dy_block;
          }
          gate_gradients(at_t + b * ldg + 4 * p, c_before + p, c_after + p, dh + b * wide + p, dy,
                         w.dc + (b0 + b) * P + p, credit.cell);
        }
      }
      if (credit.passing && t == T - 1) std::fill(dh_buffer.begin(), dh_buffer.end(), 0.f);  // has been used
      int64_t needed = std::min(ceil_div(places, COLUMNS), h_panels);  // panels of dh that the step before reads
      if (t == w.first_step) needed = t == 0 ? h_panels : 0;  // the first states, or nothing
      const auto send = [&](int64_t q, int64_t columns, float* to, int64_t stride) {  // through panel q
        if (places > 0)
          return product(brgemm, n, columns, 4 * places, at_t, ldg, weights + q * packed_rows * COLUMNS, COLUMNS, to,
                         stride);
        for (int64_t b = 0; b < n; b++) std::fill_n(to + b * stride, columns, 0.f);  // every unit is cut
      };
      for (int64_t q = 0; q < needed; q++) {
        const int64_t columns = credit.columns[q];
        if (columns == 0) continue;
        send(q, columns, dh + q * COLUMNS, wide);
        if (!credit.passing) continue;
        for (int64_t b = 0; b < n; b++)
          for (int64_t p = q * COLUMNS; p < q * COLUMNS + columns; p++)
            if (!credit.passing[p]) dh[b * wide + p] = 0.f;
      }
      for (int64_t q = h_panels; q < panels; q++) {
        const int64_t x0 = (q - h_panels) * COLUMNS;
        send(q, std::min(COLUMNS, inputs - x0), w.dx.at(t, b0) + x0, w.dx.sample);
      }
    }
    for (int64_t b = 0; b < n; b++) std::copy(dh + b * wide, dh + b * wide + P, w.dh + (b0 + b) * P);
  });
}

// Overwrites `gates` by their gradients from `first_step` on, those of the first `places` only, and returns
// dx (T, B, inputs), dh0 (B, H), dc0 (B, H). The other places get no dc0, and dh0 if panels for them were packed.
// passing (P): places that get credit through the recurrent weights (none: all), panels being packed up to the last;
// cell: whether gradient flows along the cell state.
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& gates, const Tensor& cells, const Tensor& panels,
                                            const Tensor& order, const optional<Tensor>& dy,
                                            const optional<Tensor>& dh_last, const optional<Tensor>& dc_last, int64_t H,
                                            int64_t inputs, bool batch_first, int64_t first_step, int64_t places,
                                            const optional<Tensor>& passing, bool cell, bool brgemm) {
  TORCH_CHECK(gates.dim() == 3 && panels.dim() == 3, "gates must be (steps, batch, columns), panels (n, rows, ", COLUMNS,
              ")");
  const int64_t T = gates.size(0), B = gates.size(1), P = order.numel();
  check_range("H", H, 0, P);
  check_order(order, H);
  check_panels(panels, panels.size(0), 4 * P, COLUMNS, brgemm);
  check("gates", gates, panels.scalar_type(), {T, B, gates.size(2)});
  TORCH_CHECK(gates.size(2) >= 4 * P, "gates have ", gates.size(2), " columns, must have at least ", 4 * P);
  check("cells", cells, at::kFloat, {T + 1, B, P});
  if (dy) check_rows("dy", *dy, T, B, H);
  check("dh_last", dh_last, at::kFloat, {B, H});
  check("dc_last", dc_last, at::kFloat, {B, H});
  check_range("first_step", first_step, 0, T);
  check_range("places", places, 0, P);
  TORCH_CHECK(places % LANES == 0, "places is ", places, ", must be whole blocks of ", LANES);
  check_range("inputs", inputs, 0, panels.size(0) * COLUMNS);
  const int64_t h_panels = panels.size(0) - ceil_div(inputs, COLUMNS);
  check("passing", passing, at::kBool, {P});
  int64_t read = places;  // the places whose dh is read end here
  if (passing)
    for (read = P; read > 0 && !passing->const_data_ptr<bool>()[read - 1];) read--;
  TORCH_CHECK(ceil_div(read, COLUMNS) <= h_panels && h_panels <= ceil_div(P, COLUMNS), "panels are ", panels.size(0),
              ": ", h_panels, " for h, must be from ", ceil_div(read, COLUMNS), " to ", ceil_div(P, COLUMNS));
  const auto plain = cells.options();
  Tensor dx = batch_first ? at::empty({B, T, inputs}, plain).transpose(0, 1) : at::empty({T, B, inputs}, plain);
  if (first_step > 0) dx.narrow(0, 0, first_step).zero_();
  Tensor dh = at::zeros({B, P}, plain), dc = at::zeros({B, P}, plain);
  const auto blocks = blocks_of(order);
  const auto into_places = [&](const optional<Tensor>& from, Tensor& to) {
    if (!from) return;
    for (int64_t b = 0; b < B; b++)
      for (size_t j = 0; j < blocks.size(); j++)
        blocks[j].gather(from->const_data_ptr<float>() + b * H, to.data_ptr<float>() + b * P + j * LANES);
  };
  into_places(dh_last, dh);
  into_places(dc_last, dc);
  const Backward work{gates, cells, panels, blocks, dy ? Rows(*dy) : Rows(), inputs ? Rows(dx) : Rows(),
                      dh.data_ptr<float>(), dc.data_ptr<float>(), first_step, places, Credit(passing, h_panels, cell)};
  if (gates.scalar_type() == at::kBFloat16) backward_as<BFloat16>(work, brgemm);
  else backward_as<float>(work, brgemm);
  dc.narrow(1, places, P - places).zero_();
  Tensor dh0 = at::zeros({B, H}, plain), dc0 = at::zeros({B, H}, plain);
  if (first_step == 0)
    for (int64_t b = 0; b < B; b++)
      for (size_t j = 0; j < blocks.size(); j++) {
        blocks[j].scatter(dh.const_data_ptr<float>() + b * P + j * LANES, dh0.data_ptr<float>() + b * H);
        blocks[j].scatter(dc.const_data_ptr<float>() + b * P + j * LANES, dc0.data_ptr<float>() + b * H);
      }
  return {dx, dh0, dc0};
}

}  // namespace

TORCH_LIBRARY(isotrain, m) {
  m.def("has_brgemm(bool bf16) -> bool", has_brgemm);
  m.def("pack_forward(Tensor w_ih, Tensor w_hh, Tensor? b_ih, Tensor? b_hh, Tensor order, int K, bool bf16) "
        "-> Tensor", pack_forward);
  m.def("pack_backward(Tensor w_ih, Tensor w_hh, Tensor order, int columns, int inputs, bool bf16) "
        "-> Tensor", pack_backward);
  m.def("forward(Tensor[] inputs, Tensor h0, Tensor c0, Tensor panels, Tensor order, int kept, bool batch_first, "
        "bool brgemm) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)", forward);
  m.def("backward(Tensor(a!) gates, Tensor cells, Tensor panels, Tensor order, Tensor? dy, "
        "Tensor? dh_last, Tensor? dc_last, int H, int inputs, bool batch_first, int first_step, int places, "
        "Tensor? passing, bool cell, bool brgemm) -> (Tensor, Tensor, Tensor)", backward);
}
