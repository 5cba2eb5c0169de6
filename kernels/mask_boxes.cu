// A ragged batch of saliency maps to masks, areas, boxes and scores, and as an option to the largest connected part of
// each mask, without leaving the device.
//
// Inputs
//   maps        float32 in [0, 1], all maps one behind the other, rows contiguous
//   offsets     (M,) int64: where map m begins in `maps`, and in `masks`, `parents` and `counts`
//   sizes       (M, 2) int32: height and width of map m, H W < 2^31
// Outputs
//   masks       uint8, 0 or 1, laid out like `maps`
//   areas       (M,) int64, pixels. Sums, boxes and areas begin as the caller fills them: areas and sums 0,
//   boxes       (M, 4) int32, x0 y0 x1 y1, half-open; begin as (H W, H W, 0, 0) or any bounds that give way
//   sums        (M,) uint64: the saliency inside the mask times 2^32, an integer so that no order of adding changes it
//
// Order of launches, T threads a block, C blocks per map, grid (M, C) but where said otherwise:
//   a threshold per map:  histograms, then otsu_thresholds with grid ceil(M / T)
//   masks:                threshold_maps
//   the largest part:     start_parts, join_parts, count_parts, find_largest_parts, keep_largest_parts, measure_masks
//   masks as they are:    measure_masks
// Neighbours in a part touch at an edge or a corner. Of equally large parts the one that comes first, row by row, stays.
//
// Bytes moved per pixel: histograms 4 read; threshold_maps 4 read, 1 written; measure_masks 5 read; start_parts 1 + 4;
// join_parts 1 to 21 read and few written (neighbours in the cache); count_parts 4 read, 4 written, an atomic each;
// find_largest_parts 4 read; keep_largest_parts 5 read, 1 written.
// Limits: M < 2^31, C <= 65,535, H W < 2^31, and H W x 2^32 < 2^64.

#define BINS 256

// Pixels [begin, end) of this thread's map, `step` apart.
struct Pixels {
    long long offset;
    int height, width, begin, count, step;

    __device__ Pixels(const long long* offsets, const int* sizes) {
        offset = offsets[blockIdx.x];
        height = sizes[2 * (long long)blockIdx.x];
        width = sizes[2 * (long long)blockIdx.x + 1];
        count = height * width;
        begin = blockIdx.y * blockDim.x + threadIdx.x;
        step = gridDim.y * blockDim.x;
    }
};

// How often each of 256 equal bins of [0, 1] is met: counts (M, 256) int32, which begin as 0.
extern "C" __global__ void histograms(const float* maps, const long long* offsets, const int* sizes, int* counts) {
    __shared__ int own[BINS];
    for (int bin = threadIdx.x; bin < BINS; bin += blockDim.x) own[bin] = 0;
    __syncthreads();
    Pixels pixels(offsets, sizes);
    for (long long p = pixels.begin; p < pixels.count; p += pixels.step) {
        // Rounded after each step, as NumPy does: a fused multiply-add would put some values in the next bin.
        int bin = (int)__fadd_rn(__fmul_rn(__ldg(maps + pixels.offset + p), BINS - 1.0f), 0.5f);
        atomicAdd(&own[min(max(bin, 0), BINS - 1)], 1);
    }
    __syncthreads();
    for (int bin = threadIdx.x; bin < BINS; bin += blockDim.x)
        if (own[bin]) atomicAdd(&counts[(long long)blockIdx.x * BINS + bin], own[bin]);
}

// Otsu's threshold of each histogram: thresholds (M,) float32; 1 (nothing lies above) where all values share a bin.
extern "C" __global__ void otsu_thresholds(const int* counts, float* thresholds, int n_maps) {
    int map = blockIdx.x * blockDim.x + threadIdx.x;
    if (map >= n_maps) return;
    const int* own = counts + (long long)map * BINS;
    long long all = 0, total = 0;
    for (int level = 0; level < BINS; ++level) {
        all += own[level];
        total += (long long)own[level] * level;
    }
    long long below = 0, sum = 0;
    double best = -1.0;
    int best_level = -1;
    for (int level = 0; level < BINS; ++level) {
        below += own[level];
        sum += (long long)own[level] * level;
        long long above = all - below;
        if (below == 0 || above == 0) continue;
        double difference = (double)sum / (double)below - (double)(total - sum) / (double)above;
        double between = (double)below * (double)above * (difference * difference);
        if (between > best) {
            best = between;
            best_level = level;
        }
    }
    thresholds[map] = best_level < 0 ? 1.0f : (float)((best_level + 0.5) / (BINS - 1));
}

// What the threads of a block have measured of their map, joined.
struct Measure {
    int area, x0, y0, x1, y1;
    unsigned long long sum;

    __device__ Measure() : area(0), x0(0x7fffffff), y0(0x7fffffff), x1(0), y1(0), sum(0) {}

    __device__ void add(int p, int width, float saliency) {
        int y = p / width, x = p - y * width;
        area += 1;
        x0 = min(x0, x);
        y0 = min(y0, y);
        x1 = max(x1, x + 1);
        y1 = max(y1, y + 1);
        sum += (unsigned long long)((double)fminf(fmaxf(saliency, 0.0f), 1.0f) * 4294967296.0);
    }
};

// Every thread of the block must call it.
__device__ void join_measures(const Measure& own, long long* areas, int* boxes, unsigned long long* sums) {
    __shared__ int area, box[4];
    __shared__ unsigned long long sum;
    if (threadIdx.x == 0) {
        area = 0;
        sum = 0;
        box[0] = box[1] = 0x7fffffff;
        box[2] = box[3] = 0;
    }
    __syncthreads();
    if (own.area) {
        atomicAdd(&area, own.area);
        atomicAdd(&sum, own.sum);
        atomicMin(&box[0], own.x0);
        atomicMin(&box[1], own.y0);
        atomicMax(&box[2], own.x1);
        atomicMax(&box[3], own.y1);
    }
    __syncthreads();
    if (threadIdx.x == 0 && area) {
        int* whole = boxes + 4 * (long long)blockIdx.x;
        atomicAdd((unsigned long long*)&areas[blockIdx.x], (unsigned long long)area);
        atomicAdd(&sums[blockIdx.x], sum);
        atomicMin(&whole[0], box[0]);
        atomicMin(&whole[1], box[1]);
        atomicMax(&whole[2], box[2]);
        atomicMax(&whole[3], box[3]);
    }
}

// Saliency above its map's threshold is mask; measured on the way.
extern "C" __global__ void threshold_maps(const float* maps, const long long* offsets, const int* sizes,
                                          const float* thresholds, unsigned char* masks, long long* areas, int* boxes,
                                          unsigned long long* sums) {
    Pixels pixels(offsets, sizes);
    float threshold = thresholds[blockIdx.x];
    Measure own;
    for (long long p = pixels.begin; p < pixels.count; p += pixels.step) {
        float saliency = __ldg(maps + pixels.offset + p);
        bool inside = saliency > threshold;
        masks[pixels.offset + p] = inside;
        if (inside) own.add((int)p, pixels.width, saliency);
    }
    join_measures(own, areas, boxes, sums);
}

// Areas, boxes and sums of masks that are there already.
extern "C" __global__ void measure_masks(const float* maps, const long long* offsets, const int* sizes,
                                         const unsigned char* masks, long long* areas, int* boxes,
                                         unsigned long long* sums) {
    Pixels pixels(offsets, sizes);
    Measure own;
    for (long long p = pixels.begin; p < pixels.count; p += pixels.step)
        if (masks[pixels.offset + p]) own.add((int)p, pixels.width, __ldg(maps + pixels.offset + p));
    join_measures(own, areas, boxes, sums);
}

// -- connected parts: a forest in which every pixel of a mask points to one that comes no later in its part ---------

// parents: int32 laid out like `maps`, places inside their map; -1 outside the mask.
extern "C" __global__ void start_parts(const unsigned char* masks, const long long* offsets, const int* sizes,
                                       int* parents) {
    Pixels pixels(offsets, sizes);
    for (long long p = pixels.begin; p < pixels.count; p += pixels.step)
        parents[pixels.offset + p] = masks[pixels.offset + p] ? (int)p : -1;
}

__device__ int root_of(const volatile int* parents, int place) {
    int parent = parents[place];
    while (parent != place) {
        place = parent;
        parent = parents[place];
    }
    return place;
}

__device__ void join(int* parents, int a, int b) {
    for (;;) {
        a = root_of(parents, a);
        b = root_of(parents, b);
        if (a == b) return;
        int later = max(a, b), earlier = min(a, b);
        int before = atomicMin(&parents[later], earlier);
        if (before == later) return;
        // Another thread was faster: what `later` pointed to then must come to `earlier` as well.
        a = before;
        b = earlier;
    }
}

extern "C" __global__ void join_parts(const long long* offsets, const int* sizes, int* parents) {
    Pixels pixels(offsets, sizes);
    int* own = parents + pixels.offset;
    int width = pixels.width;
    for (long long place = pixels.begin; place < pixels.count; place += pixels.step) {
        int p = (int)place;
        if (own[p] < 0) continue;
        int y = p / width, x = p - y * width;
        if (x > 0 && own[p - 1] >= 0) join(own, p, p - 1);
        if (y == 0) continue;
        if (own[p - width] >= 0) {
            join(own, p, p - width);
            continue;  // it touches the other two
        }
        if (x > 0 && own[p - width - 1] >= 0) join(own, p, p - width - 1);
        if (x + 1 < width && own[p - width + 1] >= 0) join(own, p, p - width + 1);
    }
}

// Every pixel points to the first of its part, where the pixels are counted: counts int32 laid out like `maps`, from 0.
extern "C" __global__ void count_parts(const long long* offsets, const int* sizes, int* parents, int* counts) {
    Pixels pixels(offsets, sizes);
    int* own = parents + pixels.offset;
    for (long long p = pixels.begin; p < pixels.count; p += pixels.step) {
        if (own[p] < 0) continue;
        int root = root_of(own, (int)p);
        own[p] = root;
        atomicAdd(&counts[pixels.offset + root], 1);
    }
}

// largest: (M,) uint64, from 0: the size of the largest part, and below it what the place of its first pixel lacks to
// 2^32 - 1, so that of equal sizes the earlier is larger.
extern "C" __global__ void find_largest_parts(const long long* offsets, const int* sizes, const int* counts,
                                              unsigned long long* largest) {
    Pixels pixels(offsets, sizes);
    for (long long p = pixels.begin; p < pixels.count; p += pixels.step) {
        unsigned long long size = (unsigned long long)counts[pixels.offset + p];
        if (size) atomicMax(&largest[blockIdx.x], size << 32 | (0xffffffffULL - (unsigned long long)p));
    }
}

extern "C" __global__ void keep_largest_parts(const long long* offsets, const int* sizes, const int* parents,
                                              const unsigned long long* largest, unsigned char* masks) {
    Pixels pixels(offsets, sizes);
    int root = (int)(0xffffffffULL - (largest[blockIdx.x] & 0xffffffffULL));
    for (long long p = pixels.begin; p < pixels.count; p += pixels.step)
        masks[pixels.offset + p] = masks[pixels.offset + p] && parents[pixels.offset + p] == root;
}
