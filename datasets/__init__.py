"""Data sets: what a data set and a task are, and one file for each data set.

This package belongs to robult-bench. It shares its name with Hugging Face's `datasets`; `bench` refuses to
start where that one is found first (see `bench/__main__.py`).
"""

__robult_bench__ = True
