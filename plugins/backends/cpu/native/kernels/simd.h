// SPDX-License-Identifier: Apache-2.0
// Vectors of floats as wide as the instruction set of this compilation, and the element types that kernels store.
//
// Written with the vector types of GCC and Clang, so that one source serves every instruction set, NEON included;
// intrinsics stand only where the compiler does not find the instruction. Everything is in a namespace named after the
// instruction set: the linker must never take a function compiled for a newer processor for an older one. For the same
// reason kernels use no function templates of the standard library.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "abi.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tramontane::TM_ISA {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float VF __attribute__((vector_size(4 * W)));
typedef int32_t VI __attribute__((vector_size(4 * W)));
typedef uint32_t VU __attribute__((vector_size(4 * W)));
typedef uint16_t VH __attribute__((vector_size(2 * W)));

template <class T> inline T minimum(T a, T b) { return a < b ? a : b; }
template <class T> inline T maximum(T a, T b) { return a > b ? a : b; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Unaligned load and store of any vector.
template <class V> inline V get(const void* from) {
    V v;
    memcpy(&v, from, sizeof v);
    return v;
}
template <class V> inline void put(void* to, V v) { memcpy(to, &v, sizeof v); }

inline VF splat(float x) {
#if defined(__AVX512F__)
    return _mm512_set1_ps(x);
#elif defined(__AVX2__)
    return _mm256_set1_ps(x);
#else
    return VF{x, x, x, x};
#endif
}

inline VF zero() { return splat(0.0f); }

// 0, 1, 2 ...
#if defined(__AVX512F__)
constexpr VF LANES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif defined(__AVX2__)
constexpr VF LANES = {0, 1, 2, 3, 4, 5, 6, 7};
#else
constexpr VF LANES = {0, 1, 2, 3};
#endif
inline VF min_v(VF a, VF b) { return a < b ? a : b; }
inline VF max_v(VF a, VF b) { return a > b ? a : b; }

// a * b + c, rounded once where the processor can.
inline VF fma(VF a, VF b, VF c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#else
    return a * b + c;
#endif
}

inline float sum(VF v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(v);
#elif defined(__AVX2__)
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
#else
    return (v[0] + v[2]) + (v[1] + v[3]);
#endif
}

// The sums of W vectors at once: far fewer shuffles than one by one.
inline VF sums(const VF (&v)[W]) {
#if defined(__AVX512F__)
    __m512 pair[8], four[4];
    for (int i = 0; i < 8; ++i)
        pair[i] = _mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]) + _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    for (int i = 0; i < 4; ++i) {
        const __m512d a = _mm512_castps_pd(pair[2 * i]), b = _mm512_castps_pd(pair[2 * i + 1]);
        four[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b)) + _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
    const __m512 low = _mm512_shuffle_f32x4(four[0], four[1], 0x88) + _mm512_shuffle_f32x4(four[0], four[1], 0xdd);
    const __m512 high = _mm512_shuffle_f32x4(four[2], four[3], 0x88) + _mm512_shuffle_f32x4(four[2], four[3], 0xdd);
    return _mm512_shuffle_f32x4(low, high, 0x88) + _mm512_shuffle_f32x4(low, high, 0xdd);
#elif defined(__AVX2__)
    const __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    const __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
    return _mm256_permute2f128_ps(a, b, 0x20) + _mm256_permute2f128_ps(a, b, 0x31);
#else
    return VF{sum(v[0]), sum(v[1]), sum(v[2]), sum(v[3])};
#endif
}

inline float highest(VF v) {
    float found = v[0];
    for (int i = 1; i < W; ++i) found = maximum(found, v[i]);
    return found;
}

// --- element types ---------------------------------------------------------------------------------------------------

struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};

struct f8 { // e4m3: finite only, the largest is 448
    uint8_t bits;
};
struct i8 { // a whole number; what shares its scale is its owner's business
    int8_t number;
};

// W bytes, each in a lane of its own. The compiler's own conversion goes lane by lane.
inline VU widen_bytes(const void* from) {
#if defined(__AVX512F__)
    return (VU)_mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from)));
#elif defined(__AVX2__)
    return (VU)_mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(from)));
#else
    typedef uint8_t Bytes __attribute__((vector_size(W)));
    return __builtin_convertvector(get<Bytes>(from), VU);
#endif
}

// The lowest byte of each lane.
inline void put_bytes(void* to, VU v) {
#if defined(__AVX512F__)
    _mm_storeu_si128(static_cast<__m128i*>(to), _mm512_cvtepi32_epi8((__m512i)v));
#else
    uint8_t bytes[W];
    for (int i = 0; i < W; ++i) bytes[i] = static_cast<uint8_t>(v[i]);
    memcpy(to, bytes, sizeof bytes);
#endif
}

// The number that a code of e4m3 stands for. Codes without an exponent are made from normal numbers too: arithmetic with
// subnormal ones takes a hundred cycles on some processors.
inline VF widen_f8(VU code) {
    const VF normal = (VF)(((code & 0x7f) << 20) + 0x3c000000);
    const VF magnitude = (code & 0x78) == 0 ? normal + normal - splat(0x1p-6f) : normal;
    const VU bits = (code & 0x7f) == 0x7f ? (code & 0) + 0x7fc00000 : (VU)magnitude;
    return (VF)(bits | (code & 0x80) << 24);
}

inline VU narrow_f8(VF v) { // to nearest, ties to even, at most 448; NaN stays NaN
    const VU sign = ((VU)v >> 24) & 0x80;
    const VF magnitude = min_v((VF)((VU)v & 0x7fffffff), splat(448.0f));
    const VU bits = (VU)magnitude;
    const VU normal = ((bits + 0x7ffff + ((bits >> 20) & 1)) >> 20) - 0x3c0;
    const VU tiny = (VU)(magnitude * splat(512.0f) + splat(12582912.0f)) & 0xf; // see exp_v
    const VU code = magnitude < splat(0x1p-6f) ? tiny : normal;
    return sign | (v == v ? code : (code & 0) + 0x7f);
}

inline VF widen_bf16(VH h) { return (VF)(__builtin_convertvector(h, VU) << 16); }

inline VH narrow_bf16(VF v) { // to nearest, ties to even; NaN stays NaN
#if defined(__AVX512BF16__)
    return (VH)_mm512_cvtneps_pbh(v);
#else
    const VU bits = (VU)v;
    const VU rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const VU quiet = (bits >> 16) | 0x40;
    return __builtin_convertvector(v == v ? rounded : quiet, VH);
#endif
}

inline VF widen_f16(VH h) {
#if defined(__AVX512F__)
    return _mm512_cvtph_ps((__m256i)h);
#elif defined(__F16C__)
    return _mm256_cvtph_ps((__m128i)h);
#else
    // Shift mantissa and exponent into place and rescale the exponent's bias by a product, which also serves
    // subnormals; infinities and NaN get the largest exponent.
    const VU bits = __builtin_convertvector(h, VU);
    const VU sign = (bits & 0x8000) << 16, rest = bits & 0x7fff;
    const VF scaled = (VF)(rest << 13) * splat(0x1p112f);
    const VU special = (rest << 13) | 0x7f800000;
    return (VF)(sign | (rest >= 0x7c00 ? special : (VU)scaled));
#endif
}

inline VH narrow_f16(VF v) {
#if defined(__AVX512F__)
    return (VH)_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__F16C__)
    return (VH)_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    const VU bits = (VU)v;
    const VU sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
    // Normal numbers: rebias and round the dropped 13 bits. Subnormal ones: adding 0.5 aligns the mantissa so that the
    // addition itself rounds. Too large: infinity; NaN stays NaN.
    const VU normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    const VU tiny = (VU)((VF)magnitude + splat(0.5f)) - (VU)splat(0.5f);
    VU half = magnitude < 0x38800000 ? tiny : normal;
    half = magnitude >= 0x477ff000 ? (magnitude > 0x7f800000 ? half * 0 + 0x7e00 : half * 0 + 0x7c00) : half;
    return __builtin_convertvector(half | sign, VH);
#endif
}

// How W elements of a type are read and written. `round` is what a store followed by a load gives.
template <class T> struct Element;

template <> struct Element<float> {
    static VF load(const float* p) { return get<VF>(p); }
    static void store(float* p, VF v) { put(p, v); }
    static VF round(VF v) { return v; }
};

template <> struct Element<bf16> {
    static VF load(const bf16* p) { return widen_bf16(get<VH>(p)); }
    static void store(bf16* p, VF v) { put(p, narrow_bf16(v)); }
    static VF round(VF v) { return widen_bf16(narrow_bf16(v)); }
};

template <> struct Element<f16> {
    static VF load(const f16* p) { return widen_f16(get<VH>(p)); }
    static void store(f16* p, VF v) { put(p, narrow_f16(v)); }
    static VF round(VF v) { return widen_f16(narrow_f16(v)); }
};

template <> struct Element<f8> {
    static VF load(const f8* p) { return widen_f8(widen_bytes(p)); }
    static void store(f8* p, VF v) { put_bytes(p, narrow_f8(v)); }
    static VF round(VF v) { return widen_f8(narrow_f8(v)); }
};

template <> struct Element<i8> { // stores numbers in [-127, 127]
    static VF load(const i8* p) { return __builtin_convertvector((VI)(widen_bytes(p) << 24) >> 24, VF); }
    static void store(i8* p, VF v) { put_bytes(p, (VU)(v + splat(12582912.0f))); }
    static VF round(VF v) { return (v + splat(12582912.0f)) - splat(12582912.0f); }
};

// The first n < W elements; the rest of the vector is zero.
template <class T> inline VF load_some(const T* p, int64_t n) {
    T padded[W] = {};
    memcpy(padded, p, static_cast<size_t>(n) * sizeof(T));
    return Element<T>::load(padded);
}

template <class T> inline void store_some(T* p, VF v, int64_t n) {
    T padded[W];
    Element<T>::store(padded, v);
    memcpy(p, padded, static_cast<size_t>(n) * sizeof(T));
}

template <class T> inline VF load_up_to(const T* p, int64_t n) {
    return n >= W ? Element<T>::load(p) : load_some(p, n);
}

template <class T> inline void store_up_to(T* p, VF v, int64_t n) {
    if (n >= W) {
        Element<T>::store(p, v);
    } else {
        store_some(p, v, n);
    }
}

template <class T> inline float to_float(T x) { return load_some(&x, 1)[0]; }
template <> inline float to_float(float x) { return x; }
template <> inline float to_float(bf16 x) {
    const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Calls f with a value of the type that `dtype` names; activations are of these two.
template <class F> inline void with_activation_type(int32_t dtype, F&& f) {
    if (dtype == TM_BF16) {
        f(bf16{});
    } else {
        f(float{});
    }
}

template <class F> inline void with_float_type(int32_t dtype, F&& f) {
    if (dtype == TM_F16) {
        f(f16{});
    } else {
        with_activation_type(dtype, f);
    }
}

// What the cache may be made of: these, and the two of eight bits.
template <class F> inline void with_cache_type(int32_t dtype, F&& f) {
    switch (dtype) {
    case TM_F8: return f(f8{});
    case TM_I8: return f(i8{});
    default: return with_float_type(dtype, f);
    }
}

inline int64_t size_of(int32_t dtype) {
    switch (dtype) {
    case TM_I64: return 8;
    case TM_F32: case TM_I32: return 4;
    case TM_F8: case TM_I8: return 1;
    default: return 2;
    }
}

} // namespace tramontane::TM_ISA
