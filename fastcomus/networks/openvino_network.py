"""A network of torch, translated for OpenVINO."""

from __future__ import annotations

import copy
import threading
import warnings
from typing import Any

import torch
from torch import nn

# Of the largest output, how far the two may lie apart: rounding makes a thousandth of the first, a third of the second.
_TOLERANCES = {"float32": 1e-3, "bf16": 0.1}
_HINTS = {"float32": "f32", "bf16": "bf16"}


class OpenVinoNetwork:
    """A network compiled for this processor, which computes each image by itself, as many at once as torch has threads.

    One by one, activations stay in the processor's cache (a third faster than four together), and what is made of an
    image does not depend on its neighbours. Several threads may call it.
    """

    def __init__(self, network: nn.Module, example: torch.Tensor, precision: str, has_one_size: bool) -> None:
        """Translate a network and compare the two.

        Args:
            network: In eval mode on the CPU; takes images (N, 3, H, W) uint8, and gives one tensor.
            example: Such images.
            precision: "float32" or "bf16".
            has_one_size: Whether all images are as large as `example`; else they may be of any size.

        Raises:
            Exception: OpenVINO cannot translate the network, or computes something else.
        """
        import openvino

        self._at_once, self._own = torch.get_num_threads(), threading.local()  # each thread has requests of its own
        shape = [1, *example.shape[1:]] if has_one_size else [1, example.shape[1], -1, -1]
        self._compiled = openvino.Core().compile_model(
            _convert(_trace(network, example[:1]), shape),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _HINTS[precision],  # else it takes what the processor likes best
                "INFERENCE_NUM_THREADS": self._at_once,
                "NUM_STREAMS": self._at_once,
                "ENABLE_CPU_PINNING": False,  # other work may sit on the cores that it would choose
            },
        )
        with torch.inference_mode():
            expected = network(example)
        apart = (self(example) - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
        if not bool(apart <= _TOLERANCES[precision]):
            raise ValueError(f"its output differs by {float(apart):.2g} of the largest")

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Run the network on images (N, 3, H, W) uint8; float32."""
        if not hasattr(self._own, "requests"):
            self._own.requests = []
        made = []
        for group in images.split(self._at_once):
            while len(self._own.requests) < len(group):
                self._own.requests.append(self._compiled.create_infer_request())
            started = list(zip(self._own.requests, group.split(1), strict=False))
            # Without callbacks, which may end in a thread that waits for the interpreter while this one waits for it.
            for request, image in started:
                request.start_async([image.numpy()])
            for request, _ in started:
                request.wait()
                made.append(torch.from_numpy(request.get_output_tensor(0).data.copy()))
        return torch.cat(made).float()


def _trace(network: nn.Module, example: torch.Tensor) -> torch.jit.ScriptModule:
    """Record the operations of a network; activations out of place are translated many times faster."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is called out of date; OpenVINO reads nothing else as fast
        traced = torch.jit.trace(network, example, check_trace=False)
        return torch.jit.freeze(traced)


def _convert(traced: torch.jit.ScriptModule, shape: list[int]) -> Any:
    """Make a model of OpenVINO's. Its own `convert_model` does the same, and tells its maker over the network."""
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced, shared_memory=False, skip_freeze=True)  # must outlive `convert`
    loaded = frontend.load(decoder)
    (images,) = loaded.get_inputs()
    loaded.set_element_type(images, openvino.Type.u8)
    loaded.set_partial_shape(images, openvino.PartialShape(shape))
    return frontend.convert(loaded)
