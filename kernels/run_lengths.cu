// A ragged batch of masks to the places where they change, down every column, columns from left to right: the order of
// COCO's run lengths. Few numbers leave the device instead of a byte per pixel.
//
// Inputs
//   masks       uint8, 0 or 1, all masks one behind the other, rows contiguous
//   offsets     (M,) int64: where mask m begins in `masks`
//   sizes       (M, 2) int32: height and width of mask m, H W < 2^31
//   columns     (M,) int64: which of all columns is the first of mask m
// Outputs
//   counts      (all columns,) int32, by count_changes: how often a column differs from the pixel before, which for its
//               first pixel is the last one of the column to the left, and 0 before the mask
//   changes     int32, by write_changes: of each, x H + y; those of a column begin in `changes` at `ends` - `counts`
//   ends        (all columns,) int64: sums of `counts` up to and with each column
// Grid          (M, ceil(W / T)) for the widest mask, T threads: a thread walks down a column, neighbours share cache
//               lines. No shared memory, no barriers.
//
// Bytes moved per pixel: 1 read by either kernel; 4 written per change.
// Limits: M < 2^31, W / T <= 65,535, H W < 2^31.

struct Column {
    const unsigned char* top;
    int height, width, x;
    long long number;

    __device__ Column(const unsigned char* masks, const long long* offsets, const int* sizes, const long long* columns) {
        long long mask = blockIdx.x;
        height = sizes[2 * mask];
        width = sizes[2 * mask + 1];
        x = blockIdx.y * blockDim.x + threadIdx.x;
        top = masks + offsets[mask] + x;
        number = columns[mask] + x;
    }

    __device__ bool is_there() const { return x < width; }

    __device__ unsigned char before() const { return x ? top[(long long)(height - 1) * width - 1] : 0; }
};

extern "C" __global__ void count_changes(const unsigned char* masks, const long long* offsets, const int* sizes,
                                         const long long* columns, int* counts) {
    Column column(masks, offsets, sizes, columns);
    if (!column.is_there()) return;
    unsigned char last = column.before();
    int count = 0;
    for (int y = 0; y < column.height; ++y) {
        unsigned char now = __ldg(column.top + (long long)y * column.width);
        count += now != last;
        last = now;
    }
    counts[column.number] = count;
}

extern "C" __global__ void write_changes(const unsigned char* masks, const long long* offsets, const int* sizes,
                                         const long long* columns, const int* counts, const long long* ends,
                                         int* changes) {
    Column column(masks, offsets, sizes, columns);
    if (!column.is_there()) return;
    unsigned char last = column.before();
    int* place = changes + (ends[column.number] - counts[column.number]);
    for (int y = 0; y < column.height; ++y) {
        unsigned char now = __ldg(column.top + (long long)y * column.width);
        if (now != last) *place++ = column.x * column.height + y;
        last = now;
    }
}
