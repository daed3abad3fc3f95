"""What a run's manifest says, and whether a run can be resumed by other settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsir import files
from rsir.config import RecursionConfig, flat, from_dict, to_dict
from rsir.config.counting import FIXED
from rsir.errors import ConfigError, RunError

__all__ = ["CHANGEABLE", "compare", "encode", "read", "settled"]

Rounds = dict[str, dict[str, dict[str, Any]]]
"""Size and SHA-256 of every file of every finished round, by the names of folder and file."""

FORMAT = 1
CHANGEABLE = ("rounds", "stop_after", "guard", "data.path", "generation.slots")
"""Options that a resumed run may have other values for, as they change nothing that has been computed."""


def compare(path: Path, before: RecursionConfig, now: RecursionConfig, same_data: bool) -> None:
    """RunError unless a run with some settings can be resumed by others."""
    old, new = flat(before), flat(now)
    fix = "repeat the run's own settings, or start another run in another --out"
    for name in old:
        if name not in CHANGEABLE and new[name] != old[name]:
            its, given = ("none" if value is None else repr(value) for value in (old[name], new[name]))
            difference = f"the run has {its}, got {given}"
            raise RunError(f"{path}: cannot resume with another {name}: {difference}; {fix}")
    if now.rounds < before.rounds:
        raise RunError(
            f"{path}: cannot resume with fewer rounds: the run has {before.rounds}, got {now.rounds}; give as many, "
            "or more to extend the run"
        )
    if not same_data and before.data.path != now.data.path:
        raise RunError(
            f"{path}: cannot resume with another data.path: the run has {before.data.path!r}, got {now.data.path!r}, "
            f"whose content differs; {fix}"
        )
    if not same_data:
        raise RunError(
            f"{path}: cannot resume: the data ({before.data.path or 'given or simulated'}) are not those the run was "
            "made from; put them back, or start another run in another --out"
        )


def settled(values: dict[str, Any]) -> dict[str, Any]:
    """The settings that a run keeps for good, by dotted name."""
    return {name: value for name, value in flat(values).items() if name not in CHANGEABLE}


def encode(config: RecursionConfig, data: str, rounds: Rounds) -> bytes:
    """Content of a manifest."""
    content = {"format": FORMAT, "config": to_dict(config), "data": data, "rounds": rounds}
    return files.to_json({**content, "checksum": files.checksum(content)})


def read(path: Path, beside: Path) -> tuple[RecursionConfig, str, Rounds]:
    """Settings, fingerprint of the data and recorded rounds of a manifest, whose settings a file beside it repeats."""
    manifest = files.read_json(path)
    if manifest.get("format", FORMAT) != FORMAT:
        raise RunError(
            f"{path}: has format {manifest['format']!r}, this rsir reads {FORMAT}: use the rsir that wrote it"
        )
    checksum = manifest.pop("checksum", None)
    if checksum != files.checksum(manifest) or not _well_formed(manifest):
        raise RunError(f"{path}: is damaged; put the original back, or start another run")
    values = files.read_json(beside)
    changed = RunError(f"{beside}: has been changed since the run began; put the original back")
    if "config" not in manifest and manifest["settings"] != files.checksum(settled(values)):
        raise changed
    try:
        repeated = from_dict(RecursionConfig, _completed(values))
        config = from_dict(RecursionConfig, _completed(manifest.get("config", values)))
    except ConfigError as cause:
        raise RunError(
            f"{beside}: does not hold settings of this version of rsir ({cause}); env.json names the one that wrote it"
        ) from cause
    if settled(to_dict(repeated)) != settled(to_dict(config)):
        raise changed
    return config, manifest["data"], manifest["rounds"]


def _completed(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run that is older than some of them, with what such a run did where today's default does not."""
    did: dict[str, dict[str, Any]] = {
        "data": {"repeats": "targets"},
        "itemknn": {"vote": "off", "cold_neighbours": 0, "search": "off", **FIXED},
        "model": {"times": "off"},
        "simulation": {"order": 0.0},
        "training": {"real_last": 0},
    }
    for section, before in did.items():
        own = values.get(section, {} if section == "itemknn" else None)  # a section that is newer than some runs
        if isinstance(own, dict):
            values = {**values, section: {**before, **own}}
    return values


def _well_formed(manifest: dict[str, Any]) -> bool:
    rounds = manifest.get("rounds")
    if not isinstance(rounds, dict) or not all(isinstance(entries, dict) for entries in rounds.values()):
        return False
    entries = (entry for recorded in rounds.values() for entry in recorded.values())
    return (
        isinstance(manifest.get("data"), str)
        and isinstance(manifest.get("config", {}), dict)
        and isinstance(manifest.get("config", manifest.get("settings")), dict | str)
        and all(isinstance(entry, dict) and isinstance(entry.get("size"), int) for entry in entries)
    )
