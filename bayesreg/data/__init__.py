"""The one reading of what users give as data: arrays, tables, datasets, loaders, streams, and the batches of each."""

from bayesreg.data.batch import Batch, BatchFormat, moved, to_device
from bayesreg.data.columns import Arrays, as_arrays, as_inputs, dtype_of, feature_columns, in_order, is_table
from bayesreg.data.loaders import TrainingData, as_loader, as_tensors, makes_batches, whole
from bayesreg.data.metrics import Metric, check_metrics
from bayesreg.data.predicting import Kind, predicted
from bayesreg.data.reading import Reading, evaluate, in_evaluation
from bayesreg.data.size import Counting, WeightsAre, count_of, num_examples, size_of

__all__ = [
    "Arrays",
    "Batch",
    "BatchFormat",
    "Counting",
    "Kind",
    "Metric",
    "Reading",
    "TrainingData",
    "WeightsAre",
    "as_arrays",
    "as_inputs",
    "as_loader",
    "as_tensors",
    "check_metrics",
    "count_of",
    "dtype_of",
    "evaluate",
    "feature_columns",
    "in_evaluation",
    "in_order",
    "is_table",
    "makes_batches",
    "moved",
    "num_examples",
    "predicted",
    "size_of",
    "to_device",
    "whole",
]
