"""A trained model for other systems: its encoder as an ONNX or torch.export program, its items as a FAISS index."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from rsir import files
from rsir.data.sequences import Sequences
from rsir.errors import DataError, ExportError
from rsir.generation.neighbours import index_bytes
from rsir.models.protocol import Backbone, check_backbone
from rsir.models.times import uses_times

__all__ = ["SUFFIXES", "encoder_program", "export", "write_items"]

SUFFIXES = (".faiss", ".onnx", ".pt2")
_USER_INPUT = torch.export.graph_signature.InputKind.USER_INPUT
_ONE_FILE = 2**31 - 2**24
"""Most bytes of weights that go into the ONNX file itself: with its graph it cannot have more than 2 GiB."""


def export(model: Backbone, catalogue: Sequences, path: str | os.PathLike[str]) -> Path:
    """Write a model's encoder or items, by the extension, and beside it the table of items.

    - ``.onnx``: the encoder. Inputs ``items`` (batch, length) int64, right-padded with 0, and ``lengths`` (batch,)
      int64; of a model that uses times also ``times`` (batch, length + 1) int64, as
      :class:`rsir.models.TimedBackbone` has them; output ``query`` (batch, d) float32. Needs ``rsir[onnx]``. Weights of
      2 GiB and more lie beside it in a file whose name ends in ``.onnx.data`` and which goes wherever it goes.
    - ``.pt2``: the same as a ``torch.export`` program; ``torch.export.load(path).module()(items, lengths)``, or with
      ``times`` after them.
    - ``.faiss``: a flat index of the item embeddings by inner product; what it finds for a query are item ids, and
      their scores are the model's logits.

    The length may be anything from 2 to the model's max_len, or, where the model's program cannot leave it open
    (recurrent ones), it is max_len. Any batch size will do.

    Parameters
    ----------
    model : Backbone
        For the encoder also a ``torch.nn.Module``, on the CPU.
    catalogue : Sequences
        For the items' labels.
    path : path

    Returns
    -------
    Path
        Path of the table of items, ``id`` (int64) and ``label``: the file with the extension ``.items.parquet``.

    Raises
    ------
    ExportError
        Another extension, a package that is missing, or a model that cannot be traced.
    """
    path = Path(path)
    check_backbone(model)
    if path.suffix not in SUFFIXES:
        raise ExportError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")
    if path.suffix == ".faiss":
        files.replace(path, index_bytes(model.item_embeddings()), ExportError)
    elif path.suffix == ".pt2":
        files.replace(path, _saved(encoder_program(model)), ExportError)
    else:
        _write_onnx(encoder_program(model), path)
    return write_items(catalogue, path.with_suffix(".items.parquet"))


def write_items(catalogue: Sequences, path: Path) -> Path:
    """Write the table of a catalogue's items, ``id`` and ``label``, as Parquet."""
    ids = pa.array(np.arange(1, catalogue.num_items + 1))
    labels = ids if catalogue.item_labels is None else catalogue.item_labels
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": ids, "label": labels}), sink, compression="zstd")
    files.replace(path, sink.getvalue(), DataError)
    return path


class _Encoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        query: Tensor = self.model.encode(items, lengths)
        return query


class _TimedEncoder(_Encoder):
    def forward(self, items: Tensor, lengths: Tensor, times: Tensor) -> Tensor:  # type: ignore[override]
        query: Tensor = self.model.encode(items, lengths, times)
        return query


def encoder_program(model: Backbone) -> torch.export.ExportedProgram:
    """The encoder as a program of its own in evaluation mode: (items, lengths) -> queries, or with times after them."""
    if not isinstance(model, nn.Module):
        raise ExportError(f"{type(model).__name__}: expected a torch.nn.Module, whose weights can go into a file")
    if any(value.device.type != "cpu" for value in model.state_dict().values()):
        model = copy.deepcopy(model).cpu()  # a program runs where its weights were when it was written
    was_training = model.training
    timed = uses_times(model)
    encoder = (_TimedEncoder if timed else _Encoder)(model).eval()
    batch = torch.export.Dim("batch", min=1, max=2**20)
    length = torch.export.Dim("length", min=2, max=model.max_len)
    lengths = torch.tensor([1, 2, 2])

    def program(width: int, free: dict[int, Any], more: dict[int, Any]) -> torch.export.ExportedProgram:
        given: tuple[Tensor, ...] = (torch.ones(3, width, dtype=torch.int64), lengths)
        shapes: tuple[dict[int, Any], ...] = ({0: batch, **free}, {0: batch})
        if timed:
            given += (torch.arange(width + 1).expand(3, -1).contiguous(),)
            shapes += ({0: batch, **more},)
        return torch.export.export(encoder, given, dynamic_shapes=shapes)

    try:
        with torch.no_grad(), _quiet():
            try:
                # of a width below the largest, which would be taken for a constant
                return program(max(model.max_len - 1, 2), {1: length}, {1: length + 1})
            except Exception:  # the length cannot be left open
                return program(model.max_len, {}, {})
    except Exception as cause:
        reason = str(cause).strip().partition("\n")[0]
        raise ExportError(f"{type(model).__name__}: its encode cannot be traced by torch.export: {reason}") from cause
    finally:
        model.train(was_training)


def _write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    try:
        import onnxscript  # noqa: F401
    except ImportError as cause:
        raise ExportError("ONNX needs two packages more: pip install 'rsir[onnx]'") from cause
    with _quiet():
        made: Any = torch.onnx.export(
            program,
            input_names=[spec.arg.name for spec in program.graph_signature.input_specs if spec.kind is _USER_INPUT],
            output_names=["query"],
            dynamo=True,
            verbose=False,
        )
    if sum(value.nbytes for value in program.state_dict.values()) <= _ONE_FILE:
        files.replace(path, made.model_proto.SerializeToString(), ExportError)
        return
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp") as folder:
            made.save(Path(folder) / path.name, external_data=True)  # which names the file of weights after this one
            for name in (f"{path.name}.data", path.name):
                with files.replacing(path.with_name(name), ExportError) as temporary:
                    os.replace(Path(folder) / name, temporary)
    except OSError as cause:
        raise files.refused(path, cause, ExportError) from cause


def _saved(program: torch.export.ExportedProgram) -> bytes:
    sink = io.BytesIO()
    torch.export.save(program, sink)
    return sink.getvalue()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on its own insides."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
