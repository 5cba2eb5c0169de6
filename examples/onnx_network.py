"""The trained network without torch: python onnx_network.py segmenter.onnx PHOTO MASK.png."""

import sys

import numpy as np
import onnxruntime
from PIL import Image

network, photo, mask = sys.argv[1:4]
session = onnxruntime.InferenceSession(network)
stride = int(session.get_modelmeta().custom_metadata_map["output_stride"])
picture = Image.open(photo).convert("RGB")
sides = [side // stride * stride + 1 for side in picture.size]  # n x output stride + 1
pixels = np.asarray(picture.resize(sides)).transpose(2, 0, 1)[None]  # (1, 3, H, W) uint8
labels = session.run(None, {"images": np.ascontiguousarray(pixels)})[0][0]  # (H, W)
Image.fromarray(labels).resize(picture.size, Image.Resampling.NEAREST).save(mask)
