// float16 for kernels that run on the CPU: rounding to nearest, ties to even, as the GPU's instruction does.
#pragma once
#include <cstdint>
#include <cstring>

struct __half {
    uint16_t bits;
};

static inline __half __float2half_rn(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return {(uint16_t)(sign | 0x7e00)};   // not a number
    if (bits >= 0x477ff000) return {(uint16_t)(sign | 0x7c00)};  // infinity, or rounded to it
    if (bits < 0x38800000) {                                     // subnormal: a multiple of 2^-24
        float magnitude;
        memcpy(&magnitude, &bits, 4);
        return {(uint16_t)(sign | (uint16_t)__builtin_nearbyintf(magnitude * 16777216.0f))};
    }
    uint32_t odd = bits >> 13 & 1;
    return {(uint16_t)(sign | (uint16_t)((bits - 0x38000000 + 0xfff + odd) >> 13))};
}
