"""`bayesreg demo`: what a prior buys when a task has few examples."""

from bayesreg.demo.experiment import DemoResult, run_demo

__all__ = ["DemoResult", "run_demo"]
