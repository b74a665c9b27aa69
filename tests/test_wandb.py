"""What a run logs to Weights & Biases, read back from the files of its offline mode."""

import json
import struct
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import TINY, rows, summary, tiny_run, train

from dqn_exp.config.problems import ConfigError

# pyright: reportAttributeAccessIssue=false
# (type checkers cannot see into the generated protocol-buffer modules)

BLOCK = 32768  # bytes


def stored(content: bytes) -> Iterator[bytes]:
    """The records of a .wandb file, which has LevelDB's log format after a header of 7 bytes."""
    at, parts = 7, []
    while at < len(content):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        parts.append(content[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield b"".join(parts)
            parts = []


def logged(folder: Path) -> dict[str, dict[int, float]]:
    """Tag -> env step -> value, of all W&B sessions of a run folder."""
    from wandb.proto.wandb_internal_pb2 import Record  # slow to import

    found: dict[str, dict[int, float]] = defaultdict(dict)
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for data in stored(file.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            items = record.history.item
            values = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
            for tag, value in values.items():
                found[tag][values["env_step"]] = value
    return found


@pytest.mark.slow
def test_every_metric_is_logged_for_each_seed_and_as_their_mean(tmp_path: Path) -> None:
    begin = [*TINY, "seeds=2", "seed=3", "logger=[tensorboard,wandb]", "hydra.run.dir=run"]
    for arguments in (begin, ["resume=run", "total_steps=400"]):
        done = train(tmp_path, *arguments, WANDB_MODE="offline")
        assert (done.returncode, done.stderr) == (0, "")
    run = tmp_path / "run"
    ids = {file.stem for file in run.glob("wandb/offline-run-*/*.wandb")}
    assert len(ids) == 1  # the continued run is the same one
    found = logged(run)
    for row in rows(run / "metrics.csv"):
        values = found[f"seed={row['seed']}/{row['tag']}"]
        assert values[int(row["step"])] == pytest.approx(float(row["value"]))
    means = [found[f"seed={seed}/eval/return_mean"][400] for seed in (3, 4)]
    assert found["eval/return_mean"][400] == pytest.approx(sum(means) / 2)
    assert means == pytest.approx(summary(run)["final_returns"])
    assert list(run.glob("seed=3/events.*"))


def test_without_the_library_a_run_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as refusal:
        tiny_run(tmp_path / "run", "logger=wandb").run()
    assert str(refusal.value) == 'wandb: is not installed: pip install "dqn-exp[wandb]"'
    assert not (tmp_path / "run/summary.json").exists()


@pytest.mark.slow
def test_a_failing_library_costs_a_warning_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def fail(**_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(wandb, "init", fail)
    tiny_run(tmp_path / "run", "logger=wandb").run()
    assert summary(tmp_path / "run")["status"] == "finished"
    warning = "W&B does not get the metrics any more, the CSV files still do: no network"
    assert [r.message for r in caplog.records if r.levelname == "WARNING"].count(warning) == 1
