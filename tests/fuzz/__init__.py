"""A fuzzer of files, command lines and public calls: `python -m tests.fuzz --seconds 120`.

Each case damages something that works and asks what becomes of it. Only three ends are good: the same result, a clear
refusal, or a result where the change was legitimate. A traceback, a raw error, an unclear message or another value
without a word is a finding; the run then ends with 1.
"""
