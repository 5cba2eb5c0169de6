// Objects with their clusters to class maps at each image's own size, in one ragged buffer.
//
// Inputs
//   shapes         what tells object from background, all objects one behind the other, rows contiguous, each at its
//                  image's size: saliency float32 in [0, 1], or masks uint8
//   shape_offsets  (N,) int64: where object n begins in `shapes`
//   thresholds     (N,) float32: an object is where its shape is larger; 0 for masks
//   boxes          (N, 4) int32: x0 y0 x1 y1, half-open; outside it the shape is not read. The whole image will do.
//   clusters       (N,) int32
//   is_kept        (N,) uint8: objects with a 0 are left out
//   first_objects  (I + 1,) int64: objects [first_objects[i], first_objects[i + 1]) are those of image i, later ones
//                  over earlier ones
//   image_offsets  (I,) int64: where image i begins in `class_maps`
//   image_sizes    (I, 2) int32: height and width, H W < 2^31
// Output
//   class_maps     uint8 or uint16: cluster + 1 inside an object, 0 elsewhere. A cluster that does not fit is the
//                  caller's mistake and is cut.
// Grid             (I, C), T threads: C blocks share an image. No shared memory, no barriers.
//
// Bytes moved per image: sizeof(output) H W written, and of every object at most sizeof(shape) times its box read:
// pixels under a later object are not looked at again.
// Limits: I < 2^31, C <= 65,535, H W < 2^31.

template <class Shape, class Label>
__device__ void assemble(const Shape* shapes, const long long* shape_offsets, const float* thresholds, const int* boxes,
                         const int* clusters, const unsigned char* is_kept, const long long* first_objects,
                         const long long* image_offsets, const int* image_sizes, Label* class_maps) {
    long long image = blockIdx.x;
    int height = image_sizes[2 * image], width = image_sizes[2 * image + 1];
    long long first = first_objects[image], last = first_objects[image + 1] - 1;
    Label* labels = class_maps + image_offsets[image];
    long long step = (long long)gridDim.y * blockDim.x;
    for (long long p = (long long)blockIdx.y * blockDim.x + threadIdx.x; p < (long long)height * width; p += step) {
        int y = (int)p / width, x = (int)p - y * width;
        int label = 0;
        for (long long object = last; object >= first; --object) {
            const int* box = boxes + 4 * object;
            if (!is_kept[object] || x < box[0] || y < box[1] || x >= box[2] || y >= box[3]) continue;
            if ((float)__ldg(shapes + shape_offsets[object] + p) > thresholds[object]) {
                label = clusters[object] + 1;
                break;
            }
        }
        labels[p] = (Label)label;
    }
}

extern "C" __global__ void assemble_masks_uint8(
    const unsigned char* shapes, const long long* shape_offsets, const float* thresholds, const int* boxes,
    const int* clusters, const unsigned char* is_kept, const long long* first_objects, const long long* image_offsets,
    const int* image_sizes, unsigned char* class_maps) {
    assemble(shapes, shape_offsets, thresholds, boxes, clusters, is_kept, first_objects, image_offsets, image_sizes,
             class_maps);
}

extern "C" __global__ void assemble_masks_uint16(
    const unsigned char* shapes, const long long* shape_offsets, const float* thresholds, const int* boxes,
    const int* clusters, const unsigned char* is_kept, const long long* first_objects, const long long* image_offsets,
    const int* image_sizes, unsigned short* class_maps) {
    assemble(shapes, shape_offsets, thresholds, boxes, clusters, is_kept, first_objects, image_offsets, image_sizes,
             class_maps);
}

extern "C" __global__ void assemble_saliency_uint8(
    const float* shapes, const long long* shape_offsets, const float* thresholds, const int* boxes, const int* clusters,
    const unsigned char* is_kept, const long long* first_objects, const long long* image_offsets,
    const int* image_sizes, unsigned char* class_maps) {
    assemble(shapes, shape_offsets, thresholds, boxes, clusters, is_kept, first_objects, image_offsets, image_sizes,
             class_maps);
}

extern "C" __global__ void assemble_saliency_uint16(
    const float* shapes, const long long* shape_offsets, const float* thresholds, const int* boxes, const int* clusters,
    const unsigned char* is_kept, const long long* first_objects, const long long* image_offsets,
    const int* image_sizes, unsigned short* class_maps) {
    assemble(shapes, shape_offsets, thresholds, boxes, clusters, is_kept, first_objects, image_offsets, image_sizes,
             class_maps);
}
