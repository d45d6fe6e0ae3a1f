"""Pictures: functions that take and return matplotlib Axes and never show them.

What belongs to one object is also its `.plot()`: of a prior, a `ModelPrior`, a fit, a regularization path, a choice of
strength. Lines differ by dashes, width or marker as well as by colour.
"""

from bayesreg.plots.accuracy import plot_accuracy
from bayesreg.plots.agreement import plot_calibration, plot_predicted
from bayesreg.plots.canvas import save
from bayesreg.plots.coefficients import plot_coefficients
from bayesreg.plots.contours import plot_contours
from bayesreg.plots.history import plot_history
from bayesreg.plots.layers import plot_layers
from bayesreg.plots.path import plot_path
from bayesreg.plots.prior import plot_pair, plot_prior
from bayesreg.plots.strength import plot_strength
from bayesreg.plots.weights import plot_weights

__all__ = [
    "plot_accuracy",
    "plot_calibration",
    "plot_coefficients",
    "plot_contours",
    "plot_history",
    "plot_layers",
    "plot_pair",
    "plot_path",
    "plot_predicted",
    "plot_prior",
    "plot_strength",
    "plot_weights",
    "save",
]
