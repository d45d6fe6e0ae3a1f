"""What looks on while a model trains, writes down what it sees, and may stop it."""

from bayesreg.callbacks.base import Callback, Training
from bayesreg.callbacks.jsonl import JSONLines
from bayesreg.callbacks.log import Log
from bayesreg.callbacks.profile import Profile
from bayesreg.callbacks.tensorboard import TensorBoard

__all__ = ["Callback", "JSONLines", "Log", "Profile", "TensorBoard", "Training"]
