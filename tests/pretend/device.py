"""A CUDA device that is none: tensors that say ``cuda:0``, hold CPU memory and refuse what CUDA refuses.

:func:`install` changes torch for the whole process, so it is for processes of their own (:mod:`tests.pretend.cases`),
before rsir is imported. It refuses operations that mix devices as ATen does (CPU tensors of no dimension and CPU index
tensors pass), generators of another kind of device, ``numpy()`` of a device tensor and CPU tensors given to a kernel.
It counts what would be launches, waits of the host and copies, with the line of rsir that made them. It shows neither
what does not compile nor races.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import subprocess
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def _guard() -> Path:
    """Autograd asks the device for streams: a library that answers, built once a version of torch."""
    source = Path(__file__).with_name("guard.cpp")
    library = ROOT / "build" / "pretend" / f"guard-{version('torch')}-{sys.version_info[1]}.so"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        spec = find_spec("torch")
        assert spec is not None
        assert spec.origin is not None
        home = Path(spec.origin).parent
        library.parent.mkdir(parents=True, exist_ok=True)
        scratch = library.with_suffix(".tmp")
        compiler = ["c++", "-std=c++20", "-O0", "-shared", "-fPIC", f"-I{home / 'include'}", str(source)]
        libraries = [f"-L{home / 'lib'}", f"-Wl,-rpath,{home / 'lib'}", "-ltorch_cpu", "-lc10"]
        subprocess.run([*compiler, *libraries, "-o", str(scratch)], check=True)
        scratch.replace(library)
    return library


_library = ctypes.CDLL(str(_guard()))  # torch asks for its hooks when it is imported

import torch  # noqa: E402

_library.pretend()
from torch.overrides import _get_current_function_mode_stack  # noqa: E402
from torch.utils._device import DeviceContext  # noqa: E402
from torch.utils._python_dispatch import (  # noqa: E402
    TorchDispatchMode,
    _disable_current_modes,
    return_and_correct_aliasing,
)
from torch.utils._pytree import tree_flatten, tree_map  # noqa: E402

CUDA = torch.device("cuda", 0)
GENERATOR_BYTES = 16  # a state's size tells CUDA's generators from the CPU's, which have 5056

# They launch nothing: views, and memory that is not written.
VIEWS = {
    *("view", "_unsafe_view", "_reshape_alias", "as_strided", "slice", "select", "unsqueeze", "squeeze", "expand"),
    *("permute", "transpose", "t", "split", "split_with_sizes", "unbind", "detach", "alias", "unfold", "diagonal"),
    *("view_as_real", "lift_fresh", "chunk", "empty", "empty_like", "empty_strided", "new_empty", "narrow"),
}
# The host waits for their result, or for its size.
WAITS = {
    *("_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "_unique2", "unique_dim"),
    *("unique_consecutive", "item", "is_nonzero", "unique_dim_consecutive"),
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
COPIES = {"_to_copy", "copy_", "copy"}


class MixedDevices(RuntimeError):
    """What ATen says of tensors on different devices."""


class Counts:
    """What the device was asked for so far, by the lines of rsir that asked."""

    def __init__(self) -> None:
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()


COUNTS = Counts()


class PretendCuda(torch.Tensor):
    """A tensor on the device; ``held`` is its memory."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> PretendCuda:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=CUDA,
            requires_grad=False,
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self) -> str:
        return f"PretendCuda({self.held!r})"

    def tolist(self) -> Any:
        COUNTS.waits[_where("tolist")] += 1
        return self.held.tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RuntimeError("pickling a tensor of the device")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def install() -> None:
    """Give this process the device. ``TRITON_INTERPRET=1`` must be in the environment."""
    _patch_cuda()
    _patch_triton()
    _Mode().__enter__()


def _where(what: str) -> str:
    """``what``, and the innermost line of rsir or of a test that leads to it."""
    frame = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.name != "device.py" and ROOT in file.parents and "build" not in file.parts:
            return f"{what} at {file.relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return what


def _held(value: Any) -> Any:
    return value.held if isinstance(value, PretendCuda) else value


def _on_device(value: Any) -> Any:
    return PretendCuda(value) if isinstance(value, torch.Tensor) and not isinstance(value, PretendCuda) else value


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Check an operation as ATen does, count it, and compute it on the memory."""
    name = func.overloadpacket.__name__
    leaves, _ = tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    here = [tensor for tensor in tensors if isinstance(tensor, PretendCuda)]
    device, generator = kwargs.get("device"), kwargs.get("generator")
    to_device = device is not None and torch.device(device).type == "cuda"
    if generator is not None and (generator._cdata in _GENERATORS) != bool(here or to_device):
        raise MixedDevices(_where(f"{func}: a generator of another device"))
    if not here and not to_device:
        return func(*args, **kwargs)
    _check(func, name, args, tensors)
    _count(name, args, device, tensors)

    inner_args, inner = tree_map(_held, (tuple(args), dict(kwargs)))
    if device is not None:
        inner["device"] = torch.device("cpu")
    inner.pop("pin_memory", None)
    computed = functools.partial(_gru_cell if name == "_thnn_fused_gru_cell" else func, *inner_args, **inner)
    out = computed() if _CAPTURING is None else _CAPTURING.recorded(computed, name, (inner_args, inner))
    if name == "copy_":
        return args[0]
    if name == "_to_copy":
        return out if device is not None and not to_device else tree_map(_on_device, out)
    out = tree_map(_on_device, out)
    return return_and_correct_aliasing(func, args, kwargs, out) if here else out


def _check(func: Any, name: str, args: Any, tensors: list[torch.Tensor]) -> None:
    elsewhere = [tensor for tensor in tensors if not isinstance(tensor, PretendCuda)]
    if not elsewhere or len(elsewhere) == len(tensors) or name in COPIES:
        return
    if name in INDEXING and isinstance(args[0], PretendCuda):
        indices = [index for index in args[1] if index is not None]
        elsewhere = [tensor for tensor in elsewhere if not any(tensor is index for index in indices)]
    if any(tensor.dim() for tensor in elsewhere) or (not isinstance(args[0], PretendCuda) and name.endswith("_")):
        shapes = [tuple(tensor.shape) for tensor in elsewhere]
        message = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu"
        raise MixedDevices(_where(f"{func}: {message} {shapes}"))


def _count(name: str, args: Any, device: Any, tensors: list[torch.Tensor]) -> None:
    source = target = "cuda"
    if name == "_to_copy":
        source = args[0].device.type
        target = source if device is None else torch.device(device).type
    elif name == "copy_":
        target, source = args[0].device.type, args[1].device.type
    masked = name in INDEXING and any(index is not None and index.dtype == torch.bool for index in args[1])
    if source != target:
        COUNTS.copies[_where(name)] += 1
    waits = name in WAITS or masked or name == "repeat_interleave" or source != target
    if _CAPTURING is not None and waits:
        raise RuntimeError(_where(f"CUDA error: operation not permitted when stream is capturing: {name}"))
    if name in WAITS or masked or name == "repeat_interleave" or (source, target) == ("cuda", "cpu"):
        COUNTS.waits[_where(name)] += 1
    if name not in VIEWS:
        COUNTS.launches[_where(name)] += 4 if masked else 1


def _gru_cell(gates: Any, hidden: Any, state: Any, bias: Any, hidden_bias: Any) -> Any:
    """A kernel that CUDA has and the CPU has not."""
    (ir, iz, new), (hr, hz, old) = (gates + bias).chunk(3, 1), (hidden + hidden_bias).chunk(3, 1)
    r, z = (ir + hr).sigmoid(), (iz + hz).sigmoid()
    new = (new + r * old).tanh()
    return new + z * (state - new), torch.empty(len(state), 5 * state.shape[1])


_GENERATORS: dict[int, torch.Generator] = {}
"""Those of the device, by address: what reaches an operation is another Python object of the same generator."""


class _Generator(torch.Generator):
    """A generator that knows which kind of device it is of; both draw as the CPU's does."""

    kind: str

    def __new__(cls, device: Any = "cpu") -> _Generator:
        made = super().__new__(cls, "cpu")
        made.kind = torch.device(device).type
        if made.kind == "cuda":
            _GENERATORS[made._cdata] = made
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA if self.kind == "cuda" else torch.device("cpu")

    def get_state(self) -> torch.Tensor:
        state = super().get_state()
        return torch.cat([state, state.new_zeros(GENERATOR_BYTES)]) if self.kind == "cuda" else state

    def set_state(self, state: torch.Tensor) -> Any:
        expected = len(self.get_state())
        if isinstance(state, PretendCuda):
            raise TypeError("RNG state must be a torch.ByteTensor")
        if len(state) != expected:
            raise RuntimeError("RNG state is wrong size")
        return super().set_state(state[: len(super().get_state())].contiguous())


def _patch_triton() -> None:
    from triton.runtime import interpreter

    plain = interpreter.GridExecutor.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        name = getattr(self.fn, "__name__", "?")
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.Tensor) and not isinstance(value, PretendCuda):
                raise ValueError(_where(f"{name}: Pointer argument cannot be accessed from Triton (cpu tensor?)"))
        COUNTS.launches[_where(name)] += 1
        inner_args, inner = tuple(map(_held, args)), {key: _held(value) for key, value in kwargs.items()}
        computed = functools.partial(plain, self, *inner_args, **inner)
        with _disable_current_modes():
            return computed() if _CAPTURING is None else _CAPTURING.recorded(computed, name, (inner_args, inner))

    interpreter.GridExecutor.__call__ = call


def _patch_cuda() -> None:
    cuda: Any = torch.cuda
    generator = _Generator("cuda")
    properties = types.SimpleNamespace(
        name="Pretended", multi_processor_count=132, total_memory=2**37, major=9, minor=0, L2_cache_size=2**26
    )
    answers: dict[str, Any] = {
        "_lazy_init": None,
        "is_available": True,
        "is_initialized": True,
        "_is_in_bad_fork": False,
        "is_current_stream_capturing": False,
        "device_count": 1,
        "current_device": 0,
        "set_device": None,
        "synchronize": None,
        "empty_cache": None,
        "get_device_name": "Pretended",
        "get_device_properties": properties,
        "get_device_capability": (9, 0),
        "mem_get_info": (2**36, 2**37),
        "memory_allocated": 0,
        "max_memory_allocated": 0,
        "reset_peak_memory_stats": None,
    }
    for name, answer in answers.items():
        setattr(cuda, name, functools.partial(_answer, answer))
    cuda.manual_seed = cuda.manual_seed_all = generator.manual_seed
    cuda.get_rng_state = lambda device="cuda": generator.get_state()
    cuda.set_rng_state = lambda state, device="cuda": generator.set_state(state)
    cuda.device, cuda.Event = _Device, _Event
    cuda.CUDAGraph, cuda.graph = _Graph, _capture
    cuda.Stream = functools.partial(_answer, None)
    torch.Tensor.pin_memory = lambda self, device=None: self  # type: ignore[method-assign]
    torch.version.cuda = "13.0"  # type: ignore[assignment]
    torch.backends.cuda.is_built = lambda: False  # cases that capture graphs say so
    torch.backends.cudnn.is_acceptable = lambda tensor: False
    torch.Generator = _Generator  # type: ignore[misc]
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch.tensor = _tensor_of(torch.tensor)


def _answer(answer: Any, *args: Any, **kwargs: Any) -> Any:
    return answer


class _Device:
    """torch.cuda.device, of which there is one."""

    def __init__(self, device: Any) -> None:
        pass

    def __enter__(self) -> _Device:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class _Graph:
    """torch.cuda.CUDAGraph: operations and kernels that are recorded, in the memory that they had then, and repeated.

    While they are recorded they compute something, as the shapes of results must be known; what that changed in memory
    that was there before is undone at the end, as a capture computes nothing. Waits are refused.
    """

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []
        self.own: dict[int, Any] = {}  # memory by address that came up while recording
        self.before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # other memory, and what it held

    def register_generator_state(self, generator: torch.Generator) -> None:
        assert generator._cdata in _GENERATORS

    def recorded(self, compute: Callable[[], Any], name: str, given: Any) -> Any:
        for tensor in tree_flatten(given)[0]:
            if isinstance(tensor, torch.Tensor):
                self._keep(tensor)
        out = compute()
        results = [tensor for tensor in tree_flatten(out)[0] if isinstance(tensor, torch.Tensor)]
        for tensor in results:
            address = tensor.untyped_storage().data_ptr()
            if address not in self.before:
                self.own[address] = tensor.untyped_storage()
        if name not in VIEWS:
            self.calls.append(functools.partial(_repeat, compute, results))
        return out

    def _keep(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.own and storage.data_ptr() not in self.before:
            whole = torch.empty(0, dtype=torch.uint8).set_(storage)
            self.before[storage.data_ptr()] = whole, whole.clone()

    def undo(self) -> None:
        for whole, kept in self.before.values():
            whole.copy_(kept)

    def replay(self) -> None:
        COUNTS.launches[_where("replay")] += 1
        with _disable_current_modes(), torch.no_grad():
            for call in self.calls:
                call()


def _repeat(compute: Callable[[], Any], results: list[torch.Tensor]) -> None:
    again = [tensor for tensor in tree_flatten(compute())[0] if isinstance(tensor, torch.Tensor)]
    for old, new in zip(results, again, strict=True):
        if old.data_ptr() != new.data_ptr():
            old.copy_(new)


_CAPTURING: _Graph | None = None


@contextlib.contextmanager
def _capture(graph: _Graph, **options: Any) -> Iterator[None]:
    """torch.cuda.graph."""
    global _CAPTURING
    _CAPTURING = graph
    try:
        yield
    finally:
        _CAPTURING = None
        with _disable_current_modes():
            graph.undo()


class _Event:
    """torch.cuda.Event: whatever lies between two of them took a millisecond."""

    def __init__(self, **options: Any) -> None:
        pass

    def record(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: _Event) -> float:
        return 1.0


def _default_device() -> Any:
    """Of ``with torch.device(...)``."""
    named = [mode.device for mode in _get_current_function_mode_stack() if isinstance(mode, DeviceContext)]
    return named[-1] if named else "cpu"


def _tensor_of(plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """torch.tensor writes to the device without asking a dispatch mode."""

    def tensor(
        data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
    ) -> torch.Tensor:
        if isinstance(data, PretendCuda):
            device, data = device or CUDA, data.held
        made = plain(data, dtype=dtype, device="cpu").to(device or _default_device())
        return made.requires_grad_() if requires_grad else made

    return tensor
