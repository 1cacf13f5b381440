# Keras to pyright: anything. Its inline types deny what it can do.
from typing import Any

def __getattr__(name: str) -> Any: ...
