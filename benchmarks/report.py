"""Everything a run writes: the seconds of every round, the tables and the plots."""

import json

from benchmarks.tables import markdown


def write(report, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (folder / "results.md").write_text(markdown(report), encoding="utf-8")
    from benchmarks import pictures  # imported here because nothing else needs Matplotlib

    pictures.bars(report, folder / "results.png")
    pictures.roofline(report, folder / "roofline.png")
    pictures.growth(report, folder / "growth.png")
