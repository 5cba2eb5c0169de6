// Maps of one size to a ragged batch at each image's own size, bilinearly with half-pixel centres, as torch's
// interpolate(mode="bilinear", align_corners=False) does.
//
// Inputs
//   coarse      (M, h, w) float32, rows contiguous
//   height      h, width w: of every coarse map
//   offsets     (M,) int64: where map m begins in `maps`
//   sizes       (M, 2) int32: height and width of map m, H W < 2^31
// Output
//   maps        float32, all maps one behind the other, rows contiguous, cut to [0, 1]
// Grid          (M, C), T threads: C blocks share a map. No shared memory, no barriers.
//
// Every step is rounded by itself: the same bits on every GPU and on the CPU.
// Bytes moved per pixel: 4 written; a coarse map is read from the cache.
// Limits: M < 2^31, C <= 65,535, H W < 2^31.

// The two places that a pixel lies between, and how far it is from the first.
struct Between {
    int first, second;
    float share;

    __device__ Between(int pixel, int size, int coarse_size) {
        float scale = (float)coarse_size / (float)size;
        float place = fmaxf(__fadd_rn(__fmul_rn(scale, (float)pixel + 0.5f), -0.5f), 0.0f);
        first = min((int)place, coarse_size - 1);
        second = min(first + 1, coarse_size - 1);
        share = place - (float)first;
    }

    __device__ float mix(float one, float other) const {
        return __fadd_rn(__fmul_rn(1.0f - share, one), __fmul_rn(share, other));
    }
};

extern "C" __global__ void enlarge_maps(const float* coarse, int height, int width, const long long* offsets,
                                        const int* sizes, float* maps) {
    long long map = blockIdx.x;
    int own_height = sizes[2 * map], own_width = sizes[2 * map + 1];
    const float* from = coarse + map * height * width;
    float* to = maps + offsets[map];
    long long step = (long long)gridDim.y * blockDim.x;
    for (long long p = (long long)blockIdx.y * blockDim.x + threadIdx.x; p < (long long)own_height * own_width; p += step) {
        Between rows((int)p / own_width, own_height, height), columns((int)p % own_width, own_width, width);
        const float* upper = from + (long long)rows.first * width;
        const float* lower = from + (long long)rows.second * width;
        float above = columns.mix(__ldg(upper + columns.first), __ldg(upper + columns.second));
        float below = columns.mix(__ldg(lower + columns.first), __ldg(lower + columns.second));
        to[p] = fminf(fmaxf(rows.mix(above, below), 0.0f), 1.0f);
    }
}
