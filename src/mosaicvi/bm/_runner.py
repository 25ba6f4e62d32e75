"""Run methods on tasks: a subprocess for each method and seed, a JSON record for each answer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mosaicvi._errors import FileError
from mosaicvi._settings import logger
from mosaicvi.bm._input import REPORT
from mosaicvi.bm._records import Record, place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mosaicvi.bm._comparison import Comparison, Task

SCHEMA = "mosaicvi.bm/1"
MEMORY = ("peak_memory_mib", "start_memory_mib")


@dataclass(frozen=True)
class Entry:
    """A method, its options, and the name it goes by in the table.

    Parameters
    ----------
    method
        Name in the comparison's table of methods.
    label
        Name in records and table; default: the method's.
    options
        Settings of the method.
    """

    method: str
    label: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Label, else method."""
        return self.label or self.method


def _one(name: str, task: Task, entry: Entry) -> tuple[Record, dict[str, dict[str, Any]]] | None:
    """Run one worker; its report and the scores of its variants, or None if it failed."""
    with tempfile.TemporaryDirectory(prefix="mosaicvi-bm-") as place:
        folder = Path(place)
        task.write_input(folder, options=entry.options, method=entry.method, name=entry.name)
        finished = subprocess.run(
            [sys.executable, "-m", "mosaicvi.bm._worker", str(folder), name, entry.method],
            capture_output=True,
            text=True,
            check=False,
        )
        if finished.returncode != 0:
            tail = "\n".join(finished.stderr.splitlines()[-15:])
            logger.error("%s failed (status %d):\n%s", entry.name, finished.returncode, tail)
            return None
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        return report, task.score(folder)


def _records(
    comparison: Comparison, task: Task, seed: int, entry: Entry, command: str
) -> list[Record]:
    answered = _one(comparison.name, task, entry)
    if answered is None:
        return []
    report, scores = answered
    common = {
        "schema": SCHEMA,
        "comparison": comparison.name,
        "setting": comparison.setting,
        "kind": report["kind"],
        "settings": comparison.describe(),
        "task": task.describe(),
        "seed": seed,
        "options": entry.options,
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        **{key: report[key] for key in ("seconds", *MEMORY, "threads", "versions")},
        "details": report["details"],
    }
    return [
        {
            "method": f"{entry.name}/{variant}" if variant else entry.name,
            **common,
            "scores": values,
        }
        for variant, values in scores.items()
    ]


def run(
    comparison: Comparison,
    entries: Sequence[Entry],
    seeds: Sequence[int],
    *,
    out: Path | None = None,
    jobs: int = 1,
    command: str = "",
) -> list[Record]:
    """Run every method on every seed.

    Parameters
    ----------
    comparison
        What is compared.
    entries
        Methods with their options.
    seeds
        Seeds of the splits and of the methods.
    out
        Folder for one JSON file a record; None: keep them in memory only.
    jobs
        Workers at a time. Seconds are only comparable where workers do not share cores.
    command
        Kept in the records, so that a figure can be made again.

    Returns
    -------
    Records, in the order of seeds and methods. A method that fails is logged and left out.
    """
    waiting: list[Future[list[Record]]] = []

    def work(task: Task, seed: int, entry: Entry) -> list[Record]:
        found = _records(comparison, task, seed, entry, command)
        logger.info("seed %d, %s: %s", seed, entry.name, "done" if found else "failed")
        if out is not None:
            for record in found:
                write_record(record, out)
        return found

    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        for seed in seeds:
            # The next seed's data are read once a worker would else stand idle.
            while len(busy := [one for one in waiting if not one.done()]) >= max(1, jobs):
                wait(busy, return_when=FIRST_COMPLETED)
            task = comparison.task(seed)
            waiting += [pool.submit(work, task, seed, entry) for entry in entries]
    return [record for finished in waiting for record in finished.result()]


def write_record(record: Record, folder: Path) -> Path:
    """Write a record as ``<method>-<data>-<setting>-seed<seed>.json``; returns the path."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = (record["method"], place(record), f"seed{record['seed']}")
    name = "-".join(re.sub(r"[^\w.]+", "-", part).strip("-") for part in parts if part)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def read_records(path: Path) -> list[Record]:
    """Read the records of a file (one, or a summary of many), or of every file of a folder.

    Raises
    ------
    FileError
        If a file holds no records of this schema.
    """
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        return [record for file in files for record in read_records(file)]
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        records: list[Record] = content if isinstance(content, list) else [content]
        schemas = {record["schema"] for record in records}
    except (OSError, json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise FileError(
            f"{path} is no record of a comparison",
            expected="a JSON file that --out wrote, or a folder of such",
        ) from error
    if schemas - {SCHEMA}:
        raise FileError(f"{path} has schema {sorted(schemas - {SCHEMA})}", expected=repr(SCHEMA))
    return records


def write_summary(records: Sequence[Record], path: Path) -> None:
    """Write records to one file, without the scores of single features and the features' names."""

    def brief(record: Record) -> Record:
        task = dict(record["task"])
        if isinstance(task.get("features"), list):  # a summary has their number already
            task["features"] = len(task["features"])
        scores = {
            name: {key: value for key, value in parts.items() if not key.endswith("per_feature")}
            if isinstance(parts, dict)
            else parts
            for name, parts in record["scores"].items()
        }
        return {**record, "task": task, "scores": scores}

    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(brief(record)) for record in records)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
