"""The engine of a GPU, by interpreted kernels, decodes to the byte what the engine of the CPU decodes."""

import contextlib
import dataclasses

import numpy as np
import pytest
import torch

from rsir import ops
from rsir.config import FidelityConfig, GenerationConfig, ModelConfig
from rsir.data.sequences import Sequences
from rsir.generation import on_device
from rsir.generation.fidelity import build
from rsir.generation.generate import generate
from rsir.models import build as build_model
from rsir.runtime.graphs import Repeated
from rsir.runtime.philox import Stream, counters, uniform

pytest.importorskip("triton", minversion="3.5")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ITEMS = 40


def some_sources(seed=0, rows=7, longest=9):
    generator = np.random.default_rng(seed)
    lists = [generator.integers(1, ITEMS + 1, generator.integers(0, longest + 1)).tolist() for _ in range(rows)]
    return Sequences.from_lists([*lists, [3, 3, 5, 3, 7], [4, 4]], num_items=ITEMS)


def model_of(name):
    config = ModelConfig(name=name, dim=8, layers=2, heads=2, feedforward=8, max_len=6)
    model = build_model(config, ITEMS, seed=1).eval()
    with torch.no_grad():
        model.item_embeddings()[1:] *= 30  # so that what a trajectory holds matters
    return model


def both(model, sources, config, fidelity, monkeypatch, precision=None, **options):
    """What the two engines make of it; how many steps that of the GPU took."""
    expected = generate(model, sources, config, build(fidelity, model.item_embeddings(), 1), round_=1, **options)
    steps = []
    monkeypatch.setattr(on_device, "DEVICES", {"cuda", "cpu"})
    plain = on_device.DeviceEngine._advance
    monkeypatch.setattr(on_device.DeviceEngine, "_advance", lambda self, slots: steps.append(0) or plain(self, slots))
    there = model.to(DEVICE)
    table = ops.pack(there.item_embeddings(), backend="triton", instruction_set=precision)
    policy = build(fidelity, there.item_embeddings(), 1, table)
    return expected, generate(there, sources, config, policy, table=table, round_=1, **options), len(steps)


def assert_equal(found, expected):
    assert found.stats == expected.stats
    for name in ("items", "offsets", "source", "round"):
        np.testing.assert_array_equal(getattr(found.trajectories, name), getattr(expected.trajectories, name))


BASE = GenerationConfig(m=2, k=5, p=0.5, min_length=2, slots=5)


@pytest.mark.parametrize(
    ("name", "config", "fidelity"),
    [
        ("sasrec", {}, {"tau": 6}),
        ("sasrec", {"start": "prefix", "k": 1, "p": 0.3}, {"tau": 15, "on_fail": "keep"}),
        ("sasrec", {"p": 1.0, "k": 100, "temperature": 0.3}, {"policy": "off"}),
        ("cl4srec", {"p": 0.0, "slots": 3}, {"tau": 12}),
        ("esasrec", {"slots": 64}, {"tau": 10}),
        ("hstu", {}, {"tau": 10}),
        ("gru4rec", {}, {"tau": 10}),
        ("bsarec", {}, {"tau": 10}),
    ],
)
def test_the_engines_agree(name, config, fidelity, monkeypatch):
    options = {"seed": 2**63 + 5, "numbers": np.arange(9) * 2**33 + 1}
    config = dataclasses.replace(BASE, **config)
    expected, found, steps = both(
        model_of(name), some_sources(), config, FidelityConfig(**fidelity), monkeypatch, **options
    )
    assert steps > 3
    assert expected.stats.decoded == 2 * len(on_device_rows(some_sources()))
    assert_equal(found, expected)


@pytest.mark.parametrize(("k", "fidelity"), [(5, {"tau": 6}), (1, {"policy": "off"})])
def test_a_scan_of_rounded_factors_changes_nothing(k, fidelity, monkeypatch):
    config, model = dataclasses.replace(BASE, k=k), model_of("sasrec")
    with torch.no_grad():  # near ties
        model.item_embeddings()[1:] = model.item_embeddings()[1] + 1e-4 * model.item_embeddings()[1:]
    expected, found, steps = both(
        model, some_sources(), config, FidelityConfig(**fidelity), monkeypatch, "bfloat16", seed=3
    )
    assert steps > 3
    assert_equal(found, expected)


def on_device_rows(sources):
    return [row for row in range(len(sources)) if len(set(sources[row].tolist())) > 1]


def test_a_policy_that_checks_items_is_decoded_by_the_other_engine(monkeypatch):
    fidelity = FidelityConfig(policy="both", tau=10, neighbours=9, hits=1)
    expected, found, steps = both(model_of("gru4rec"), some_sources(), BASE, fidelity, monkeypatch, seed=1)
    assert steps == 0
    assert_equal(found, expected)


class Graph:
    """What a CUDA graph would do: nothing while it is captured, the captured work at every replay."""

    def __init__(self):
        self.replays = 0

    def replay(self):
        self.replays += 1


def test_a_step_is_captured_once_and_then_replayed(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    streams = []

    def capture(graph, stream, **options):
        streams.append(stream)
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"a stream of {device}")
    computed = []
    step = Repeated(lambda: computed.append(0) or torch.tensor(len(computed)), torch.device("cuda:1"), "decoding")
    assert [int(step()) for _ in range(6)] == [1, 2, 3, 4, 4, 4]  # the fourth is captured
    assert step.graph.replays == 3
    assert streams == ["a stream of cuda:1"]  # and not of the device that is current, where nothing is computed

    plain = Repeated(lambda: torch.tensor(1), torch.device("cpu"), "decoding")
    assert [int(plain()) for _ in range(5)] == [1] * 5
    assert plain.graph is None


@pytest.mark.parametrize("name", ["CUDAGraph", "graph"])
def test_what_cannot_be_captured_is_launched(name, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)

    def refused(*graph, **options):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, name, refused)
    step = Repeated(lambda: torch.tensor(7), torch.device("cuda"), "decoding")
    assert [int(step()) for _ in range(3)] == [7] * 3
    with pytest.warns(
        UserWarning, match=r"^decoding goes on without a CUDA graph: CUDA error: operation not permitted .*capturing$"
    ):
        assert int(step()) == 7
    assert int(step()) == 7


@pytest.mark.parametrize("share", [0.0, 1e-9, 0.25, 0.5, 0.7071, 1.0])
def test_the_choice_of_the_pool_is_numpys(share):
    """On the device it is a comparison of whole numbers."""
    words = counters(Stream.POOL, 3, np.arange(4000) << 20, np.arange(4000) % 7, np.arange(4000) % 50)
    limit = max(0, -int(-(share * 2.0**32 - 0.5) // 1))
    drawn = uniform(5, words)
    np.testing.assert_array_equal(drawn * 2.0**32 - 0.5 < limit, drawn < share)
