"""Reading pickles of other people: nothing is executed, and memory and time are bounded."""

from avsbench_harness.safe_pickle.reader import read_float_tensor, read_values
from avsbench_harness.safe_pickle.unpickler import RefusedError
from avsbench_harness.safe_pickle.values import PickledArray, StoredTensor

__all__ = ["PickledArray", "RefusedError", "StoredTensor", "read_float_tensor", "read_values"]
