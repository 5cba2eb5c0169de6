"""Every call into CuPy, cuML, cuVS and FAISS GPU in the package, bound to the signature of the real thing.

The wheels import without a driver, and their signatures can be read; nothing is computed. `make test-gpu-api` makes an
environment with the extra `gpu` alone (no torch, no fastcomus) and runs this there; elsewhere it is skipped.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LIBRARIES = ("cupy", "cuml", "faiss", "cuvs")
BACKENDS = Path(__file__).parents[2] / "fastcomus" / "backends"
FILES = ("gpu.py", "gpu_neighbors.py", "kernel_loader.py")
# What variables and calls give in these files, where the libraries' annotations do not say.
OBJECTS = {
    "index": "faiss.GpuIndexIVFFlat",
    "looking": "faiss.SearchParametersIVF",
    "_load_module()": "cupy.RawModule",
    "neighbors": "pylibraft.common.device_ndarray",  # what cagra.search returns
    "compiled": "cupy._core.raw.RawKernel",
}

for library in LIBRARIES:
    pytest.importorskip(library)
if not hasattr(importlib.import_module("faiss"), "StandardGpuResources"):
    pytest.skip("this FAISS is the one for CPUs", allow_module_level=True)


def found(dotted: str) -> Any:
    """What an import statement would find; a function that has the name of its module comes before the module."""
    first, *rest = dotted.split(".")
    thing, path = importlib.import_module(first), first
    for name in rest:
        path = f"{path}.{name}"
        thing = getattr(thing, name) if hasattr(thing, name) else importlib.import_module(path)
    return thing


class Names:
    """What names in a file mean: imports of the libraries, at any depth, and OBJECTS."""

    def __init__(self, tree: ast.AST) -> None:
        self.imported: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for one in node.names:
                    if one.name.split(".")[0] in LIBRARIES:
                        self.imported[one.asname or one.name.split(".")[0]] = one.name
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES:
                for one in node.names:
                    self.imported[one.asname or one.name] = f"{node.module}.{one.name}"

    def dotted(self, node: ast.expr) -> str | None:
        """The dotted name of what `node` is, or is an instance of; None for what is not a library's."""
        if isinstance(node, ast.Name):
            return self.imported.get(node.id) or OBJECTS.get(node.id)
        if isinstance(node, ast.Attribute):
            inside = self.dotted(node.value)
            return inside and f"{inside}.{node.attr}"
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and f"{node.func.id}()" in OBJECTS:
                return OBJECTS[f"{node.func.id}()"]
            inside = self.dotted(node.func)
            return inside if inside and inspect.isclass(found(inside)) else None
        return None


def calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    tree = ast.parse(source)
    names = Names(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = names.dotted(node.func)
        if isinstance(node.func, ast.Name) and node.func.id in OBJECTS:  # an object that is called
            name = f"{name}.__call__"
        if name:
            yield name, node


def signature(name: str) -> inspect.Signature:
    """Of a function, a class (its construction) or a method without self; Cython's from the docstring's first lines."""
    thing = found(name)
    try:
        read = inspect.signature(thing)
    except (TypeError, ValueError):
        read = None
    kinds = {one.kind for one in read.parameters.values()} if read else set()
    if read is None or (inspect.Parameter.VAR_KEYWORD in kinds and inspect.Parameter.VAR_POSITIONAL in kinds):
        read = documented_signature(thing, name.split(".")[-1])
    owner = found(name.rpartition(".")[0])
    parameters = list(read.parameters.values())
    is_bound = isinstance(inspect.getattr_static(owner, name.split(".")[-1], None), classmethod)
    if inspect.isclass(owner) and not is_bound and parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    return read.replace(parameters=parameters)


def documented_signature(thing: Any, name: str) -> inspect.Signature:
    """From a line of the docstring like `Name(self, str code=None, *, tuple options=())`; the last such line counts."""
    lines = re.findall(rf"^(?:\w+\.)?{re.escape(name)}\((.*)\)", thing.__doc__ or "", re.MULTILINE)
    assert lines, f"{name} documents no signature"
    text = lines[-1].replace("\\*", "*")
    without_types = re.sub(r"(^|, )[\w.]+ (?=\w)", r"\1", text)
    made: dict[str, Any] = {}
    exec(f"def documented({without_types}): ...", made)
    return inspect.signature(made["documented"])


def bind(name: str, call: ast.Call) -> inspect.BoundArguments:
    assert not any(isinstance(one, ast.Starred) for one in call.args) and all(one.arg for one in call.keywords)
    return signature(name).bind(*call.args, **{one.arg: one.value for one in call.keywords if one.arg})


@pytest.mark.parametrize("file", FILES)
def test_every_call_fits_the_real_signature(file: str) -> None:
    seen = set()
    for name, call in calls((BACKENDS / file).read_text()):
        bind(name, call)
        print(f"{file}:{call.lineno}: {name}{signature(name)}")
        seen.add(name)
    expected = {
        "gpu.py": {
            "cuml.manifold.spectral_embedding",
            "cuml.cluster.KMeans",
            "cuml.cluster.KMeans.fit",
        },
        "gpu_neighbors.py": {
            "faiss.StandardGpuResources",
            "faiss.index_cpu_to_gpu",
            "faiss.index_factory",
            "faiss.SearchParametersIVF",
            "faiss.GpuIndexIVFFlat.train",
            "faiss.GpuIndexIVFFlat.add",
            "faiss.GpuIndexIVFFlat.search",
            "cuvs.neighbors.cagra.IndexParams",
            "cuvs.neighbors.cagra.SearchParams",
            "cuvs.neighbors.cagra.build",
            "cuvs.neighbors.cagra.search",
            "pylibraft.common.device_ndarray.copy_to_host",
        },
        "kernel_loader.py": {
            "cupy.RawModule",
            "cupy.RawModule.get_function",
            "cupy._core.raw.RawKernel.__call__",
            "cupy.cuda.Device",
            "cupy.cuda.Stream.from_external",
            "cupy.cuda.ExternalStream",
        },
    }
    assert seen == expected[file]


@pytest.mark.parametrize(
    "line",
    [
        "KMeans(k=3)",
        "KMeans(n_clusters=3).fit()",
        "spectral_embedding(1, 2)",
        "cagra.SearchParams(width=64)",
        "cagra.search(cagra.SearchParams(), 1, 2)",
        "faiss.index_cpu_to_gpu(1, 2)",
        "index.search(1, 2, nprobe=3)",
        "cupy.RawModule('', wrong=1)",
        "compiled(1, 2)",
    ],
)
def test_a_wrong_call_is_seen(line: str) -> None:
    imports = "import faiss, cupy", "from cuvs.neighbors import cagra", "from cuml.cluster import KMeans"
    source = "\n".join([*imports, "from cuml.manifold import spectral_embedding", line])
    found = list(calls(source))
    with pytest.raises(TypeError):
        [bind(name, call) for name, call in found]


def test_attributes_that_are_read_or_set_exist() -> None:
    import faiss
    from cuml.cluster import KMeans

    assert hasattr(faiss.SearchParametersIVF(), "nprobe")
    assert {"labels_", "cluster_centers_"} <= set(re.findall(r"\w+_\b", KMeans.__doc__ or ""))


def test_cupy_finds_the_header_of_half_precision() -> None:
    from cupy._core.core import assemble_cupy_compiler_options

    folders = [Path(one[2:]) for one in assemble_cupy_compiler_options(()) if one.startswith("-I")]
    assert any((folder / "cuda_fp16.h").is_file() for folder in folders), folders
