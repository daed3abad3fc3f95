"""Saving and loading every registered backbone, and what happens to damaged files."""

from __future__ import annotations

import json
import os
import resource
from contextlib import suppress

import pytest
import safetensors.torch
import torch

import rsir
from rsir import files
from rsir.config import ModelConfig
from rsir.errors import BackboneError, CheckpointError
from rsir.models import build, checkpoint, names, register, registry


@pytest.mark.parametrize("name", names())
def test_round_trip(name, tmp_path):
    config = ModelConfig(name=name, dim=8, feedforward=8, max_len=7)
    model = build(config, 20, seed=1)
    checkpoint.save(model, config, tmp_path / "new" / "folder", metrics={"ndcg@20": 0.5})
    loaded = checkpoint.load(tmp_path / "new" / "folder")
    assert not loaded.training
    assert loaded.config == config
    for (name_a, a), (name_b, b) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert name_a == name_b
        assert torch.equal(a, b)
    card = checkpoint.read_card(tmp_path / "new" / "folder")
    assert card["metrics"] == {"ndcg@20": 0.5}
    assert (card["num_items"], card["rsir"]) == (20, rsir.__version__)
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == ["model.json", "model.safetensors"]


@pytest.fixture
def saved(tmp_path):
    config = ModelConfig(dim=8, feedforward=8, max_len=7)
    checkpoint.save(build(config, 20), config, tmp_path)
    return tmp_path


def edit_card(folder, **changes):
    """As somebody would who knows the format."""
    path = folder / "model.json"
    card = json.loads(path.read_text()) | changes
    del card["checksum"]
    path.write_text(json.dumps(card | {"checksum": files.checksum(card)}))


def test_equal_models_give_equal_files(saved):
    config = ModelConfig(dim=8, feedforward=8, max_len=7)
    for name, content in checkpoint.to_files(build(config, 20), config).items():
        assert (saved / name).read_bytes() == content


def test_damaged_weights(saved):
    path = saved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        checkpoint.load(saved)


def test_missing_files(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read: No such file"):
        checkpoint.load(saved)
    with pytest.raises(CheckpointError, match=r"model\.json cannot be read: No such file"):
        checkpoint.load(saved / "nowhere")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b'{"format": 99}', b'{"format": 1}'])
def test_damaged_card(saved, content):
    (saved / "model.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.json"):
        checkpoint.load(saved)


def test_a_card_of_the_format_before_is_read(saved):
    card = json.loads((saved / "model.json").read_text())
    del card["checksum"]
    (saved / "model.json").write_text(json.dumps(card | {"format": 1}))
    assert checkpoint.load(saved).num_items == 20
    (saved / "model.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match="checksum differs"):
        checkpoint.load(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_items": 10**12}, "does not hold the weights of the model"),
        ({"model": {"dim": 2**40, "heads": 1}}, "does not hold the weights of the model"),
        ({"model": {"dim": 8, "layers": 10**6}}, r"model\.layers is 1,000,000, it has \d+ tensors"),
        ({"model": {"dim": 8, "max_len": 7, "feedforward": 2**22}}, r"expected \(4194304"),
        ({"model": {"dim": 8, "max_len": 65_535}}, r"does not hold the weights .* expected"),
        ({"model": {"max_len": 10**12}}, r"model\.max_len: expected in 2\.\.65535, got 1000000000000"),
    ],
)
def test_a_card_cannot_ask_for_all_memory(saved, changes, message):
    edit_card(saved, **changes)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(saved)


@pytest.mark.parametrize("name", names())
def test_a_card_cannot_ask_for_more_than_its_tensors(name, tmp_path):
    """Whatever size it gives, memory and time are those of the file: 2 KB cards took all there is."""
    config = ModelConfig(name=name, dim=8, feedforward=8, max_len=7)
    checkpoint.save(build(config, 20), config, tmp_path)
    card = checkpoint.read_card(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    changes = [
        {"num_items": 2**31},
        *({"model": card["model"] | {key: 2**30, "heads": 1}} for key in ("dim", "layers")),
    ]
    for change in changes:
        edit_card(tmp_path, **card | change)
        with pytest.raises(CheckpointError, match="does not hold the weights of the model"):
            checkpoint.load(tmp_path)
    for key in ("feedforward", "max_len"):  # some backbones have no use for it
        edit_card(tmp_path, **card | {"model": card["model"] | {key: 2**30 if key == "feedforward" else 65_535}})
        with suppress(CheckpointError):
            checkpoint.load(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # KiB


def test_a_backbone_of_ones_own_is_bounded_too(saved):
    @register("computes when it is made")
    class Computing(torch.nn.Module):
        def __init__(self, config, num_items, generator):
            super().__init__()
            self.num_items, self.config, self.max_len = num_items, config, config.max_len
            self.weight = torch.nn.Parameter(torch.ones(num_items + 1, config.dim))
            assert float(self.weight.detach().sum()) > 0

    try:
        config = ModelConfig(name="computes when it is made", dim=8)
        checkpoint.save(build(config, 20), config, saved)
        assert checkpoint.load(saved).num_items == 20
        edit_card(saved, **checkpoint.read_card(saved) | {"num_items": 10**12})
        with pytest.raises(CheckpointError, match="num_items x dim is 8,000,000,000,000, it has 672 bytes"):
            checkpoint.load(saved)
    finally:
        del registry.BACKBONES.makers["computes when it is made"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    config = ModelConfig(dim=8, feedforward=8, max_len=7)
    model = build(config, 20)
    with torch.no_grad():
        model.items.weight[3, :2] = value
    checkpoint.save(model, config, tmp_path)
    with pytest.raises(CheckpointError, match=r"2 of the 168 numbers of items\.weight are nan or infinite"):
        checkpoint.load(tmp_path)


def test_a_failed_write_is_a_checkpoint_error(saved, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    monkeypatch.setattr(os, "fsync", fail)
    config = ModelConfig(dim=8, feedforward=8, max_len=7)
    with pytest.raises(CheckpointError, match=r"model.safetensors: cannot be written: No space left .* some space$"):
        checkpoint.save(build(config, 20, seed=5), config, saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_card_and_weights_of_different_models(saved):
    edit_card(saved, num_items=21)
    with pytest.raises(CheckpointError, match=r"does not hold the weights of the model in model\.json"):
        checkpoint.load(saved)


def test_weights_that_are_no_safetensors(saved):
    import hashlib

    (saved / "model.safetensors").write_bytes(b"nonsense")
    edit_card(saved, sha256=hashlib.sha256(b"nonsense").hexdigest())
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        checkpoint.load(saved)


def test_unknown_backbone_and_setting(saved):
    card = checkpoint.read_card(saved)
    edit_card(saved, model=card["model"] | {"name": "other"})
    with pytest.raises(BackboneError, match="got 'other'"):
        checkpoint.load(saved)
    edit_card(saved, model=card["model"] | {"colour": "red"})
    message = r"settings that rsir .* does not know \(model\.colour: unknown option.*; rsir .* wrote it: load"
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(saved)


def test_weights_are_plain_safetensors(saved):
    tensors = safetensors.torch.load_file(saved / "model.safetensors")
    assert tensors["items.weight"].shape == (21, 8)


def test_other_versions(saved):
    """A card of an older version may lack what came later; one of a newer format says what to install."""
    path = saved / "model.json"
    card = checkpoint.read_card(saved)
    older = card | {"format": 1, "rsir": "0.0.9"}
    path.write_text(json.dumps({name: older[name] for name in ("format", "rsir", "model", "num_items", "sha256")}))
    assert checkpoint.load(saved).num_items == 20
    path.write_text(json.dumps(older | {"format": 3, "rsir": "9.1.0"}))
    with pytest.raises(CheckpointError, match=r"format 3, and rsir .* reads up to 2: rsir 9\.1\.0 wrote it"):
        checkpoint.load(saved)


def test_the_card_says_what_the_model_was_made_from(tmp_path):
    config = ModelConfig(dim=8, feedforward=8, max_len=7)
    settings = {"training.learning_rate": 0.001, "seed": 3}
    checkpoint.save(build(config, 20), config, tmp_path, data="0f" * 32, settings=settings)
    card = checkpoint.read_card(tmp_path)
    assert (card["data"], card["settings"]) == ("0f" * 32, settings)
