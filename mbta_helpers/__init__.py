"""Skills and temporally abstract world models for planning: the code under the book.

Modules in the order in which data flows: mazes, datasets, windows, networks, objectives,
training, checkpoints, planning, evaluation, plots, widgets.
"""

__version__ = "0.1.0"
