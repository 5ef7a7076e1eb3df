"""The commands of `python -m nin_core`, a module for each subject; `__main__` puts them together.

Choices made here:

* A command's flags stand beside what it does: `add_…` declares them, `arguments` has those that
  several commands share, `output` how they all speak.
* With `--json`, stdout carries JSON lines and nothing else; whatever people need besides goes to
  stderr. Without it, stdout is an aligned table or a line an epoch.
* A command imports what it needs when it runs: `summary` and `export` (but for ONNX) import
  neither PyTorch nor the store.
"""
