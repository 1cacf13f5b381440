# TensorFlow to pyright: anything. The stubs that pyright brings deny half of what it can do.
from typing import Any

def __getattr__(name: str) -> Any: ...
