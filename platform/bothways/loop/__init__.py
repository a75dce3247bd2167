"""The closed loop: stages that start from each other, in one file. Pretrain, fine-tune, evaluate, adjust, again.

A stage is prepared text, a training, a search, a scoring, rows to be labelled, or a vocabulary map. What one gives
(model, rows, lexicon, policy) another takes by its name, `stage:NAME`. What a scoring finds decides, by conditions that
are data, what comes next. Nothing here knows Ray or MLflow: `edges.loop` carries it out.
"""

from bothways.loop.flow import END, Flow
from bothways.loop.reading import Loop, is_loop, load_loop
from bothways.loop.stages import Stage

__all__ = ["END", "Flow", "Loop", "Stage", "is_loop", "load_loop"]
