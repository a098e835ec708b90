"""The engine: the plan of a pass, and the executor that runs it. It knows stages, records and buffers, not layers.

Read `plan.py` first, then `stages.py`, `schedule.py` and `executor.py`.
"""
