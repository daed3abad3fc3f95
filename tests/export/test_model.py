"""Encoders and items in the hands of other systems give what the model gives."""

from __future__ import annotations

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir import ops
from rsir.config import ModelConfig
from rsir.data import Sequences
from rsir.errors import ExportError
from rsir.export import model as exporting
from rsir.export.model import encoder_program, export
from rsir.models import build
from tests.harness.toys import ToyBackbone

MAX_LEN, ITEMS = 8, 40


def make(name="sasrec", seed=0):
    config = ModelConfig(name=name, dim=8, layers=2, heads=2, feedforward=8, dropout=0.5, max_len=MAX_LEN)
    return build(config, ITEMS, seed=seed).eval()


def named(num_items=ITEMS):
    return Sequences.from_lists([[1]], num_items, item_labels=pa.array([f"item {n}" for n in range(num_items)]))


@st.composite
def batches(draw, width=None):
    """Items (B, L) right-padded with 0, and lengths."""
    width = width or draw(st.integers(2, MAX_LEN))
    lengths = draw(st.lists(st.integers(1, width), min_size=1, max_size=5))
    rows = [draw(st.lists(st.integers(1, ITEMS), min_size=n, max_size=n)) + [0] * (width - n) for n in lengths]
    return torch.tensor(rows), torch.tensor(lengths)


MODELS = {
    "sasrec": (lambda: make(), None),
    "bsarec": (lambda: make("bsarec"), None),
    "gru4rec": (lambda: make("gru4rec"), MAX_LEN),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    made, width = MODELS[request.param]
    return made(), width


def test_torch_program_round_trip(model, tmp_path):
    model, width = model
    table = export(model, named(), tmp_path / "encoder.pt2")
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    assert pq.read_table(table).to_pydict() == {"id": list(range(1, 41)), "label": [f"item {n}" for n in range(40)]}

    @settings(max_examples=20)
    @given(batches(width))
    def the_same(batch):
        with torch.no_grad():
            torch.testing.assert_close(program(*batch), model.encode(*batch))

    the_same()


@pytest.mark.parametrize(("name", "limit"), [("sasrec", None), ("bsarec", None), ("sasrec", 1000)])
def test_onnx_round_trip(name, limit, tmp_path, monkeypatch):
    """Also of a model whose weights are too large for one file, which a low limit stands in for."""
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = make(name)
    if limit is not None:
        monkeypatch.setattr(exporting, "_ONE_FILE", limit)
    export(model, named(), tmp_path / "encoder.onnx")
    weights = [] if limit is None else ["encoder.onnx.data"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.items.parquet", "encoder.onnx", *weights]
    if limit is not None:
        assert (tmp_path / "encoder.onnx.data").stat().st_size > model.items.weight.nbytes
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    assert [entry.name for entry in session.get_inputs()] == ["items", "lengths"]

    @settings(max_examples=20)
    @given(batches())
    def the_same(batch):
        items, lengths = batch
        (query,) = session.run(["query"], {"items": items.numpy(), "lengths": lengths.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(query, model.encode(items, lengths).numpy(), rtol=1e-4, atol=1e-5)

    the_same()


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), num_items=st.integers(1, 60), k=st.integers(1, 5))
def test_index_finds_what_the_model_ranks_first(tmp_path_factory, seed, num_items, k):
    path = tmp_path_factory.mktemp("index") / "items.faiss"
    model = ToyBackbone(num_items, seed=seed)
    export(model, named(num_items), path)
    index = faiss.read_index(str(path))
    queries = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))
    scores, ids = index.search(queries.numpy(), min(k, num_items))
    best = ops.topk(queries, model.item_embeddings(), min(k, num_items))
    np.testing.assert_allclose(scores, best.logits.numpy(), rtol=1e-5, atol=1e-5)
    assert index.ntotal == num_items
    assert set(ids.ravel()) <= set(range(1, num_items + 1))


def test_what_cannot_be_exported(tmp_path, monkeypatch):
    with pytest.raises(ExportError, match=r"expected a name that ends in \.faiss, \.onnx, \.pt2"):
        export(make(), named(), tmp_path / "encoder.pkl")
    with pytest.raises(ExportError, match=r"ToyBackbone: expected a torch\.nn\.Module"):
        export(ToyBackbone(ITEMS), named(), tmp_path / "encoder.onnx")
    model = make()
    monkeypatch.setattr(model, "encode", lambda items, lengths: items if items.sum() > 9 else lengths)
    with pytest.raises(ExportError, match=r"SASRec: its encode cannot be traced by torch\.export"):
        encoder_program(model.train())
    assert model.training
    assert not list(tmp_path.iterdir())
