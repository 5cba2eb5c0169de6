// Boxes of a ragged batch of images to square crops, resized bilinearly with antialiasing as torchvision's
// resize(antialias=True) and Pillow do, less a mean and divided by a standard deviation, in one launch.
//
// Inputs
//   pixels      uint8, all images one behind the other, interleaved or planar, rows padded or not
//   layouts     (I, 4) int64: where image i begins in `pixels`, its row, column and channel stride, all in bytes
//   boxes       (N, 4) int32: x0 y0 x1 y1 in pixels, half-open, inside their image, at least one pixel
//   box_images  (N,) int32 in [0, I): the image of each box
//   statistics  (2, 3) float32: mean and standard deviation per channel, of pixels in [0, 255]
// Output
//   crops       (N, 3, S, S) float32, float16, or uint8 (rounded, for a mean of 0 and a deviation of 1)
// Grid          (N, ceil(S / B), ceil(S / R)), B threads; R = rows_per_band. No shared memory, no barriers.
//
// A thread makes one column of R output rows. It walks down the source rows once: a row, filtered across, has a share
// in at most two output rows when the box shrinks, and is kept for as long as it is needed when the box grows.
//
// Bytes moved per crop, for a box of w x h pixels larger than S: a block reads the source rows of its R output rows and
// half an output row's on either side; neighbouring columns share source pixels through the L1 cache.
//   reads   3 w h (1 + 1 / R) (1 + (ceil(S / B) - 1) / S)        with R = 16: at most 1.07 times the box
//   writes  3 S S sizeof(output)
// Limits: N < 2^31; S / R and S / B at most 65,535; boxes up to 2^24 pixels a side (places are float32).

#include <cuda_fp16.h>

// Where output place `i` of `size` reads from a side of `length` pixels.
struct Taps {
    int first, end;
    float centre, inverse;

    __device__ Taps(int i, int length, int size) {
        float scale = (float)length / (float)size;
        float support = fmaxf(scale, 1.0f);
        centre = scale * ((float)i + 0.5f);
        inverse = 1.0f / support;
        first = max((int)(centre - support + 0.5f), 0);
        end = min((int)(centre + support + 0.5f), length);
    }

    __device__ float weight(int place) const {
        return fmaxf(1.0f - fabsf(((float)place + 0.5f - centre) * inverse), 0.0f);
    }
};

struct Colour {
    float red, green, blue;

    __device__ void add(float weight, const Colour& other) {
        red += weight * other.red;
        green += weight * other.green;
        blue += weight * other.blue;
    }
};

// The box in its image, and the thread's column in it.
struct Source {
    const unsigned char* corner;
    long long row_stride, column_stride, channel_stride;
    Taps columns;
    float inverse_total;

    __device__ Source(const unsigned char* pixels, const long long* layout, const int* box, int column, int size)
        : columns(column, box[2] - box[0], size) {
        row_stride = layout[1];
        column_stride = layout[2];
        channel_stride = layout[3];
        corner = pixels + layout[0] + box[1] * row_stride + box[0] * column_stride;
        float total = 0.0f;
        for (int x = columns.first; x < columns.end; ++x) total += columns.weight(x);
        inverse_total = 1.0f / total;
    }

    // Row `y` of the box, filtered across.
    __device__ Colour row(int y) const {
        const unsigned char* at = corner + y * row_stride + columns.first * column_stride;
        Colour sum = {0.0f, 0.0f, 0.0f};
        for (int x = columns.first; x < columns.end; ++x, at += column_stride) {
            float weight = columns.weight(x) * inverse_total;
            sum.red += weight * (float)__ldg(at);
            sum.green += weight * (float)__ldg(at + channel_stride);
            sum.blue += weight * (float)__ldg(at + 2 * channel_stride);
        }
        return sum;
    }
};

__device__ void store(float* place, float value) { *place = value; }
__device__ void store(__half* place, float value) { *place = __float2half_rn(value); }
__device__ void store(unsigned char* place, float value) {
    *place = (unsigned char)fminf(fmaxf(rintf(value), 0.0f), 255.0f);
}

template <class Output>
struct Crop {
    Output* first;  // of the thread's column
    const float* statistics;
    int size;

    __device__ void write(int y, const Colour& sum, float total) const {
        float inverse = 1.0f / total;
        Output* place = first + (long long)y * size;
        long long plane = (long long)size * size;
        store(place, (sum.red * inverse - statistics[0]) / statistics[3]);
        store(place + plane, (sum.green * inverse - statistics[1]) / statistics[4]);
        store(place + 2 * plane, (sum.blue * inverse - statistics[2]) / statistics[5]);
    }
};

// Output rows [first, end) of a box that is at least as high as the crop.
template <class Output>
__device__ void shrink(const Source& source, const Crop<Output>& crop, int first, int end, int height) {
    float scale = (float)height / (float)crop.size;
    int y = max((int)floorf(scale * ((float)first - 0.5f) - 0.5f), 0);
    int y_end = min((int)ceilf(scale * ((float)end + 0.5f) - 0.5f), height);
    // What has come together of output row `row`, and of the one below it.
    Colour above = {0.0f, 0.0f, 0.0f}, below = {0.0f, 0.0f, 0.0f};
    float above_total = 0.0f, below_total = 0.0f;
    int row = first - 1;
    for (; y < y_end; ++y) {
        // Source row y lies between the centres of two output rows and is shared by them.
        float place = ((float)y + 0.5f) / scale - 0.5f;
        int upper = (int)floorf(place);
        if (upper < row) continue;
        for (; row < upper && row < end; ++row) {
            if (row >= first) crop.write(row, above, above_total);
            above = below;
            above_total = below_total;
            below = {0.0f, 0.0f, 0.0f};
            below_total = 0.0f;
        }
        if (row == end) return;
        float share = place - (float)upper;
        Colour colour = source.row(y);
        above.add(1.0f - share, colour);
        above_total += 1.0f - share;
        below.add(share, colour);
        below_total += share;
    }
    for (; row < end; ++row) {
        if (row >= first) crop.write(row, above, above_total);
        above = below;
        above_total = below_total;
    }
}

// Output rows [first, end) of a box that is lower than the crop.
template <class Output>
__device__ void enlarge(const Source& source, const Crop<Output>& crop, int first, int end, int height) {
    float scale = (float)height / (float)crop.size;
    int known = -2;  // `upper` is source row `known`, `lower` the one below it or the last
    Colour upper = {0.0f, 0.0f, 0.0f}, lower = {0.0f, 0.0f, 0.0f};
    for (int row = first; row < end; ++row) {
        float place = scale * ((float)row + 0.5f) - 0.5f;
        int y = (int)floorf(place);
        float share = place - (float)y;
        if (y != known) {
            upper = known >= -1 && y == known + 1 ? lower : source.row(max(y, 0));
            lower = y + 1 < height && y >= 0 ? source.row(y + 1) : upper;
            known = y;
        }
        Colour sum = {0.0f, 0.0f, 0.0f};
        sum.add(1.0f - share, upper);
        sum.add(share, lower);
        crop.write(row, sum, 1.0f);
    }
}

template <class Output>
__device__ void crop_resize(const unsigned char* pixels, const long long* layouts, const int* boxes,
                            const int* box_images, const float* statistics, Output* crops, int size,
                            int rows_per_band) {
    long long object = blockIdx.x;
    int column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= size) return;
    int first = blockIdx.z * rows_per_band;
    int end = min(first + rows_per_band, size);
    const int* box = boxes + 4 * object;
    int height = box[3] - box[1];
    Source source(pixels, layouts + 4LL * box_images[object], box, column, size);
    Crop<Output> crop = {crops + object * 3 * size * size + column, statistics, size};
    if (height >= size)
        shrink(source, crop, first, end, height);
    else
        enlarge(source, crop, first, end, height);
}

extern "C" __global__ void crop_resize_float32(
    const unsigned char* pixels, const long long* layouts, const int* boxes, const int* box_images,
    const float* statistics, float* crops, int size, int rows_per_band) {
    crop_resize(pixels, layouts, boxes, box_images, statistics, crops, size, rows_per_band);
}

extern "C" __global__ void crop_resize_float16(
    const unsigned char* pixels, const long long* layouts, const int* boxes, const int* box_images,
    const float* statistics, __half* crops, int size, int rows_per_band) {
    crop_resize(pixels, layouts, boxes, box_images, statistics, crops, size, rows_per_band);
}

extern "C" __global__ void crop_resize_uint8(
    const unsigned char* pixels, const long long* layouts, const int* boxes, const int* box_images,
    const float* statistics, unsigned char* crops, int size, int rows_per_band) {
    crop_resize(pixels, layouts, boxes, box_images, statistics, crops, size, rows_per_band);
}
