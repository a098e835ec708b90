"""All that a run leaves: the seconds of every round, the tables, the pictures."""

import json

from benchmarks.tables import markdown


def write(report, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (folder / "results.md").write_text(markdown(report), encoding="utf-8")
    from benchmarks import pictures  # here, as matplotlib is needed for nothing else

    pictures.bars(report, folder / "results.png")
    pictures.roofline(report, folder / "roofline.png")
    pictures.growth(report, folder / "growth.png")
